// Any bytes as a message: the decoder of the wire layer must survive them, agree with check(), and
// read again what a writer makes of the tokens.
#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

using Bytes = std::vector<std::byte>;

void require(bool holds, const char* what) {
    if (!holds) {
        std::fprintf(stderr, "codec_fuzz: %s\n", what);
        std::abort();
    }
}

// Reads every byte, so that AddressSanitizer checks their range.
std::uint8_t touch(std::span<const std::byte> data) {
    std::uint8_t sum = 0;
    for (const std::byte byte : data) {
        sum = static_cast<std::uint8_t>(sum + std::to_integer<std::uint8_t>(byte));
    }
    return sum;
}

void write(const Token& token, Writer& out) {
    switch (token.kind) {
        case Kind::Nil:
            out.nil();
            break;
        case Kind::Boolean:
            out.boolean(token.boolean);
            break;
        case Kind::Integer:
            out.integer(token.integer);
            break;
        case Kind::Natural:
            out.natural(token.natural);
            break;
        case Kind::Real:
            out.real(token.real);
            break;
        case Kind::Text:
            out.text(token.text());
            break;
        case Kind::Bytes:
            out.bytes(token.bytes);
            break;
        case Kind::Array:
            out.array(token.count);
            break;
        case Kind::Map:
            out.map(token.count);
            break;
        case Kind::Extension:
            out.extension(token.extension, token.bytes);
            break;
    }
}

// The 64-bit payload compares every bit, of NaNs too.
std::uint64_t payload(const Token& token) {
    switch (token.kind) {
        case Kind::Boolean:
            return token.boolean ? 1 : 0;
        case Kind::Integer:
            return static_cast<std::uint64_t>(token.integer);
        case Kind::Natural:
            return token.natural;
        case Kind::Array:
        case Kind::Map:
            return token.count;
        case Kind::Real: {
            std::uint64_t bits = 0;
            std::memcpy(&bits, &token.real, sizeof(bits));
            return bits;
        }
        default:
            return 0;
    }
}

bool is_same(const Token& a, const Token& b) {
    const bool has_bytes =
        a.kind == Kind::Text || a.kind == Kind::Bytes || a.kind == Kind::Extension;
    return a.kind == b.kind && payload(a) == payload(b) &&
           (a.kind != Kind::Extension || a.extension == b.extension) &&
           (!has_bytes || std::ranges::equal(a.bytes, b.bytes));
}

// Copies tokens by a writer, as long as they are valid, and compares.
void copy_tokens(Reader in) {
    MessageWriter copy;
    std::vector<Token> tokens;
    Token token;
    while (in.next(token)) {
        touch(token.bytes);
        tokens.push_back(token);
        write(token, copy.structure());
    }
    require(copy.structure().fault() == Fault::None, "a token read could not be written");
    Reader again(copy.structure().written());
    for (const Token& expected : tokens) {
        // A container may stand at the end without its values: only its head is compared.
        if (!again.next(token)) {
            require(expected.kind == Kind::Array || expected.kind == Kind::Map,
                    "a token written could not be read");
            return;
        }
        require(is_same(token, expected), "a token changed on its way");
    }
    require(again.at_end(), "more was written than read");
}

void look_at_tensors(const MessageReader& message) {
    TensorView view;
    for (std::uint32_t index = 0; index < message.tensors(); ++index) {
        if (message.tensor(index, view) != Fault::None) {
            continue;
        }
        touch(view.data);
        std::uint64_t items = 1;
        for (const std::int64_t size : view.shape()) {
            require(size >= 0, "a negative size passed");
            items *= static_cast<std::uint64_t>(size);
        }
        require(view.dtype == DType::Described || items * item_size(view.dtype) == view.data.size(),
                "a shape that does not give the payload's size passed");
    }
    require(message.tensor(message.tensors(), view) == Fault::BadTensor, "an index too far passed");
}

void look_inside_extensions(Reader in) {
    Token token;
    while (in.next(token)) {
        if (token.kind != Kind::Extension) {
            continue;
        }
        std::uint64_t index = 0;
        std::span<const std::byte> descr;
        if (tensor_reference(token.bytes, index, descr) == Fault::None) {
            touch(descr);
        }
        copy_tokens(Reader(token.bytes));
    }
}

// skip() and next() must agree on where a value ends.
void skip_values(Reader in) {
    while (!in.at_end() && in.fault() == Fault::None) {
        const std::size_t before = in.remaining();
        if (in.skip()) {
            require(in.remaining() < before, "a value of no bytes was skipped");
        }
    }
}

void run(std::span<const std::byte> data) {
    MessageReader message;
    const Fault opened = open(data, message);
    const Fault checked = check(data);
    require(!sentence(checked).empty(), "a fault without a sentence");
    if (opened != Fault::None) {
        require(checked == opened, "check() passed what open() refuses");
        return;
    }
    touch(message.structure_bytes());
    look_at_tensors(message);
    if (message.is_pickle()) {
        return;
    }
    copy_tokens(message.structure());
    skip_values(message.structure());
    look_inside_extensions(message.structure());
    if (checked == Fault::None) {
        Reader in = message.structure();
        require(in.skip() && in.at_end(), "check() passed what is not one value");
    }
}

}  // namespace
}  // namespace penstock::codec

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    // A copy of exactly that size, so that a read behind it is noticed.
    const auto* const bytes = reinterpret_cast<const std::byte*>(data);
    const std::vector<std::byte> exact(bytes, bytes + size);
    penstock::codec::run(exact);
    return 0;
}
