// A walk through a whole untrusted message, for tools and for the fuzzer.
#include <array>

#include "codec/references.hpp"
#include "penstock/codec.hpp"
#include "segment/words/read_once.hpp"

namespace penstock::codec {
namespace {

// Without recursion: the message decides how deep it is nested, and threads may have short stacks.
class Checker {
public:
    Checker(const MessageReader& message, std::size_t bytes) noexcept
        : message_(message), references_(message, bytes) {}

    // Exactly one value.
    Fault whole(Reader in) noexcept {
        levels_[0] = {in, 1, true};
        for (;;) {
            Level& level = levels_[depth_];
            if (level.left > 0) {
                --level.left;
                if (const Fault fault = value(level.in); fault != Fault::None) {
                    return fault;
                }
                continue;
            }
            if (level.is_body && !level.in.at_end()) {
                return Fault::Trailing;
            }
            if (depth_ == 0) {
                return Fault::None;
            }
            --depth_;
            if (!level.is_body) {
                levels_[depth_].in = level.in;
            }
        }
    }

private:
    // A container being walked; the outermost level is the message.
    struct Level {
        Reader in;
        std::size_t left = 0;  // values still to come
        bool is_body = false;  // the body of an extension, which must end with it
    };

    Fault enter(Reader in, std::size_t values, bool is_body) noexcept {
        if (depth_ == kMaxDepth) {
            return Fault::TooDeep;
        }
        levels_[++depth_] = {in, values, is_body};
        return Fault::None;
    }

    Fault value(Reader& in) noexcept {
        Token token;
        if (!in.next(token)) {
            return in.fault() == Fault::None ? Fault::Truncated : in.fault();
        }
        switch (token.kind) {
            case Kind::Array:
                return enter(in, token.count, false);
            case Kind::Map:
                return enter(in, 2 * token.count, false);
            case Kind::Extension:
                return extension(token);
            default:
                return Fault::None;
        }
    }

    Fault extension(const Token& token) noexcept {
        switch (token.extension) {
            case Extension::BigInt:
            case Extension::SurrogateText:
            case Extension::ByteArray:
                return Fault::None;
            case Extension::Complex:
                return token.bytes.size() == 2 * sizeof(double) ? Fault::None : Fault::BadExtension;
            case Extension::Tuple:
                return tuple(token.bytes);
            case Extension::OutOfBand:
                return out_of_band(token.bytes);
            case Extension::Tensor:
                return tensor(token.bytes);
            case Extension::NumPyScalar:
                return scalar(token.bytes);
            case Extension::DescribedScalar:
                return described_scalar(token.bytes);
            case Extension::Dataclass:
                return dataclass(token.bytes);
        }
        return Fault::UnknownExtension;
    }

    Fault tuple(std::span<const std::byte> body) noexcept {
        Reader in(body);
        Token token;
        if (!in.next(token) || token.kind != Kind::Array) {
            return Fault::BadExtension;
        }
        return enter(in, token.count, true);
    }

    Fault out_of_band(std::span<const std::byte> body) noexcept {
        Reader in(body);
        Token token;
        if (!in.next(token) || token.kind != Kind::Array || token.count != 2 || !in.next(token) ||
            token.kind != Kind::Integer || token.integer < 0 || token.integer > 1) {
            return Fault::BadExtension;
        }
        if (!in.next(token) || token.kind != Kind::Integer || token.integer < 0 || !in.at_end()) {
            return Fault::BadExtension;
        }
        return refer(static_cast<std::uint64_t>(token.integer));
    }

    Fault tensor(std::span<const std::byte> body) noexcept {
        std::uint64_t index = 0;
        std::span<const std::byte> descr;
        if (const Fault fault = tensor_reference(body, index, descr); fault != Fault::None) {
            return fault;
        }
        return refer(index);
    }

    Fault refer(std::uint64_t index) noexcept {
        TensorView view;
        const Fault fault = message_.tensor(index, view);
        return fault == Fault::None ? references_.add(view) : fault;
    }

    static Fault scalar(std::span<const std::byte> body) noexcept {
        if (body.empty()) {
            return Fault::BadExtension;
        }
        const std::size_t item =
            item_size(static_cast<DType>(detail::read_once<std::uint8_t>(body.data())));
        return item == 0                 ? Fault::UnknownDType
               : body.size() == 1 + item ? Fault::None
                                         : Fault::BadExtension;
    }

    static Fault described_scalar(std::span<const std::byte> body) noexcept {
        Reader in(body);
        Token token;
        const bool is_good = in.next(token) && token.kind == Kind::Array && token.count == 2 &&
                             in.skip() && in.next(token) && token.kind == Kind::Bytes &&
                             in.at_end();
        return is_good ? Fault::None : Fault::BadExtension;
    }

    Fault dataclass(std::span<const std::byte> body) noexcept {
        Reader in(body);
        Token token;
        if (!in.next(token) || token.kind != Kind::Array || token.count != 2 || !in.next(token) ||
            token.kind != Kind::Text) {
            return Fault::BadExtension;
        }
        if (!in.next(token) || token.kind != Kind::Map) {
            return Fault::BadExtension;
        }
        return enter(in, 2 * token.count, true);
    }

    const MessageReader& message_;
    References references_;
    unsigned depth_ = 0;  // of the innermost level
    std::array<Level, kMaxDepth + 1> levels_;
};

}  // namespace

Fault check(std::span<const std::byte> data) noexcept {
    MessageReader message;
    if (const Fault fault = open(data, message); fault != Fault::None) {
        return fault;
    }
    TensorView view;
    References payloads(message, data.size());  // payloads of a pickle are copied one by one
    for (std::uint32_t i = 0; i < message.tensors(); ++i) {
        Fault fault = message.tensor(i, view);
        if (fault == Fault::None) {
            fault = payloads.add(view);
        }
        if (fault != Fault::None) {
            return fault;
        }
    }
    return message.is_pickle() ? Fault::None
                               : Checker(message, data.size()).whole(message.structure());
}

}  // namespace penstock::codec
