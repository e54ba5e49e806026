// A walk through a whole message that believes nothing, for tools and for the fuzzer.
#include "penstock/codec.hpp"
#include "segment/read_once.hpp"

namespace penstock::codec {
namespace {

class Checker {
public:
    explicit Checker(const MessageReader& message) noexcept : message_(message) {}

    // Exactly one value.
    Fault whole(Reader in, unsigned depth) noexcept {
        const Fault fault = value(in, depth);
        if (fault != Fault::None) {
            return fault;
        }
        return in.at_end() ? Fault::None : Fault::Trailing;
    }

private:
    Fault value(Reader& in, unsigned depth) noexcept {
        Token token;
        if (!in.next(token)) {
            return in.fault() == Fault::None ? Fault::Truncated : in.fault();
        }
        switch (token.kind) {
            case Kind::Array:
                return values(in, token.count, depth);
            case Kind::Map:
                return values(in, 2 * token.count, depth);
            case Kind::Extension:
                return extension(token, depth);
            default:
                return Fault::None;
        }
    }

    Fault values(Reader& in, std::size_t count, unsigned depth) noexcept {
        if (depth == kMaxDepth) {
            return Fault::TooDeep;
        }
        for (std::size_t i = 0; i < count; ++i) {
            if (const Fault fault = value(in, depth + 1); fault != Fault::None) {
                return fault;
            }
        }
        return Fault::None;
    }

    Fault extension(const Token& token, unsigned depth) noexcept {
        switch (token.extension) {
            case Extension::BigInt:
            case Extension::SurrogateText:
            case Extension::ByteArray:
                return Fault::None;
            case Extension::Complex:
                return token.bytes.size() == 2 * sizeof(double) ? Fault::None : Fault::BadExtension;
            case Extension::Tuple:
                return tuple(token.bytes, depth);
            case Extension::OutOfBand:
                return out_of_band(token.bytes);
            case Extension::Tensor:
                return tensor(token.bytes);
            case Extension::NumPyScalar:
                return scalar(token.bytes);
            case Extension::DescribedScalar:
                return described_scalar(token.bytes);
            case Extension::Dataclass:
                return dataclass(token.bytes, depth);
        }
        return Fault::UnknownExtension;
    }

    Fault tuple(std::span<const std::byte> body, unsigned depth) noexcept {
        Reader probe(body);
        Token token;
        if (!probe.next(token) || token.kind != Kind::Array) {
            return Fault::BadExtension;
        }
        return whole(Reader(body), depth);
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
        TensorView view;
        return message_.tensor(static_cast<std::uint64_t>(token.integer), view);
    }

    Fault tensor(std::span<const std::byte> body) noexcept {
        std::uint64_t index = 0;
        std::span<const std::byte> descr;
        if (const Fault fault = tensor_reference(body, index, descr); fault != Fault::None) {
            return fault;
        }
        TensorView view;
        return message_.tensor(index, view);
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

    Fault dataclass(std::span<const std::byte> body, unsigned depth) noexcept {
        Reader in(body);
        Token token;
        if (!in.next(token) || token.kind != Kind::Array || token.count != 2 || !in.next(token) ||
            token.kind != Kind::Text) {
            return Fault::BadExtension;
        }
        Reader probe = in;
        if (!probe.next(token) || token.kind != Kind::Map) {
            return Fault::BadExtension;
        }
        return whole(in, depth);
    }

    const MessageReader& message_;
};

}  // namespace

Fault check(std::span<const std::byte> data) noexcept {
    MessageReader message;
    if (const Fault fault = open(data, message); fault != Fault::None) {
        return fault;
    }
    TensorView view;
    for (std::uint32_t i = 0; i < message.tensors(); ++i) {
        if (const Fault fault = message.tensor(i, view); fault != Fault::None) {
            return fault;
        }
    }
    return message.is_pickle() ? Fault::None : Checker(message).whole(message.structure(), 0);
}

}  // namespace penstock::codec
