// Any bytes as a second tier's head, redirection or address: their readers must survive, and an
// accepted value must be consistent, so that using it stays inside memory. Half of the heads have
// correct checksums, whatever else they hold.
#include <fuzzer/FuzzedDataProvider.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <vector>

#include "penstock/error.hpp"
#include "remote/endpoint.hpp"
#include "remote/shown.hpp"
#include "remote/slots.hpp"
#include "remote/value_format.hpp"
#include "segment/text.hpp"

namespace penstock::detail {
namespace {

void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "remote_value_fuzz: %s\n", what);
        std::abort();
    }
}

void check_parts(const ReadHead& read) {
    require(read.data.empty(), "a head with parts has data too");
    require(read.head.part_bytes >= kPartLeast && read.head.part_bytes <= kPartMost,
            "a part of a size that no writer makes");
    const std::uint64_t parts = read.head.parts();
    require(parts >= 1 && parts <= kPartsMost, "more parts than there may be");
    // Only the positions of the parts: there is no memory behind them.
    const std::uint64_t before_last = (parts - 1) * read.head.part_bytes;
    require(
        before_last < read.head.nbytes && read.head.nbytes - before_last <= read.head.part_bytes,
        "parts do not cover the data");
}

// The first bytes of a sound value, as far as its data at least, say the same as all of it.
void check_first_bytes(std::span<const std::byte> value, const std::string& key,
                       std::size_t head_bytes) {
    require(decode_head(value.first(head_bytes), key, value.size()).kind == HeadKind::Sound &&
                decode_head(value.first(head_bytes), key, std::nullopt).kind == HeadKind::Sound,
            "a head that is sound only with its data");
    require(decode_head(value.first(head_bytes), key, value.size() + 1).kind == HeadKind::Damaged,
            "a head of a value of another length");
    const HeadKind cut = decode_head(value.first(head_bytes - 1), key, value.size()).kind;
    require(cut == (head_bytes > kValueHeader ? HeadKind::Cut : HeadKind::Damaged),
            "a head that ends too early");
}

void check_head(std::span<const std::byte> value, const std::string& key) {
    const ReadHead read = decode_head(value, key);
    if (read.kind != HeadKind::Sound) return;
    require(read.head.format <= kLastFormat, "a format that is not known");
    require(read.meta.size() <= kMetaMost, "more metadata than there may be");
    if (read.head.is_inline()) {
        require(read.data.size() == read.head.nbytes && read.head.nbytes <= kSealedMost,
                "data of another length");
    } else {
        check_parts(read);
    }
    const std::string again = encode_head(read.head, read.meta, key);
    require(again.size() == value.size() - read.head.bytes_behind_meta() &&
                std::equal(again.begin(), again.end(), reinterpret_cast<const char*>(value.data())),
            "a head that is read is not the one that would be written");
    check_first_bytes(value, key, again.size());
}

// Sizes, format and metadata from the input, under correct checksums; then perhaps some damage.
void check_made_up_head(FuzzedDataProvider& in) {
    ValueHead head;
    head.format = static_cast<Format>(in.ConsumeIntegral<std::uint8_t>());
    head.nbytes = in.ConsumeBool() ? in.ConsumeIntegral<std::uint64_t>()
                                   : in.ConsumeIntegralInRange<std::uint64_t>(0, 1U << 20U);
    head.part_bytes = in.ConsumeBool() ? in.ConsumeIntegral<std::uint64_t>()
                                       : in.ConsumeIntegralInRange<std::uint64_t>(0, 1U << 20U);
    head.checksum = {in.ConsumeIntegral<std::uint64_t>(), in.ConsumeIntegral<std::uint64_t>()};
    const std::string key = in.ConsumeRandomLengthString(40);
    const std::string meta = in.ConsumeRandomLengthString(100);
    std::string value = encode_head(head, std::as_bytes(std::span(meta)), key);
    if (in.ConsumeBool()) {
        const auto at = in.ConsumeIntegralInRange<std::size_t>(0, value.size() - 1);
        value[at] = static_cast<char>(in.ConsumeIntegral<std::uint8_t>());
    }
    if (head.is_sealed() && head.nbytes <= (1U << 20U) && in.ConsumeBool()) {
        value.resize(value.size() + head.nbytes + kSealBytes, 'a');
    }
    value += in.ConsumeRemainingBytesAsString();
    check_head(std::as_bytes(std::span(value)), key);
}

void check_words(const std::string& text) {
    require(slot_of(text) < kSlots, "a slot that there is not");
    if (const auto redirect = parse_redirect(text)) {
        require(redirect->slot < kSlots, "a redirection to a slot that there is not");
    }
    const std::string shown = shown_text(text);
    require(is_utf8(shown), "a sentence that is no text");
    for (const char letter : shown) {
        const auto byte = static_cast<unsigned char>(letter);
        require(byte >= 0x20 && byte != 0x7F, "a sentence that a terminal obeys");
    }
    try {
        for (const Endpoint& endpoint : parse_servers({&text, 1}).endpoints) {
            require(!endpoint.title().empty(), "an address without a title");
        }
    } catch (const Error& refused) {
        require(refused.code() == ErrorCode::InvalidArgument, "refused for another reason");
    }
}

}  // namespace
}  // namespace penstock::detail

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider in(data, size);
    switch (in.ConsumeIntegralInRange(0, 2)) {
        case 0: {
            const std::string key = in.ConsumeRandomLengthString(40);
            const auto value = in.ConsumeRemainingBytes<std::byte>();
            penstock::detail::check_head(value, key);
            break;
        }
        case 1:
            penstock::detail::check_made_up_head(in);
            break;
        default:
            penstock::detail::check_words(in.ConsumeRemainingBytesAsString());
    }
    return 0;
}
