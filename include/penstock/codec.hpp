// The codec: a structured message (MessagePack, tensors out of band) written and read in place.
// What Python sends with send(obj) a C++ reader walks with MessageReader, and the other way round;
// docs/codec.md is the wire format.
//
// Writing:                                      Reading:
//     MessageWriter message;                        MessageReader message;
//     Writer& out = message.structure();            if (open(bytes, message) != Fault::None) ...
//     out.map(2);                                   Reader in = message.structure();
//     out.text("step");                             Token token;
//     out.integer(7);                               while (in.next(token)) ...
//     out.text("logits");
//     message.tensor({.dtype = DType::Float32, .shape = shape, .data = data});
//     auto loan = writer.loan(message.nbytes());
//     message.write(loan->bytes().data());
//     loan->commit(Format::Typed);
//
// Nothing here is thread-safe, and nothing but MessageWriter allocates or throws.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "penstock/error.hpp"

namespace penstock::codec {

inline constexpr std::size_t kAlignment = 64;      // of payloads, and of a message that has some
inline constexpr std::size_t kMaxDims = 64;        // NumPy's limit
inline constexpr unsigned kMaxDepth = 256;         // containers inside containers
inline constexpr std::size_t kOutOfBand = 65'536;  // bytes objects from here on become payloads

// Why bytes are not a message, or why a message could not be written.
enum class Fault : std::uint8_t {
    None = 0,
    NotAMessage,       // the first bytes are not a header
    OtherVersion,      // a header of another version, or with flags we do not know
    Truncated,         // a length or count reaches beyond the bytes there are
    BadMarker,         // 0xc1, which MessagePack never uses
    BadExtension,      // an ext body that is not what its type says
    UnknownExtension,  // an ext type of a newer version
    TooDeep,           // more than kMaxDepth containers inside each other
    Trailing,          // bytes behind the one value
    BadTensor,         // an entry of the table that contradicts itself or the message
    UnknownDType,      // a dtype of a newer version
    TooLarge,          // writing: a value of 4 GiB or more, a fixed buffer that is full, no memory
};

// A whole clause, such as "a length reaches beyond the end of the message".
std::string_view sentence(Fault fault) noexcept;
// Incompatible for what a newer sender may write, TooLarge, and Corrupt for every other fault.
ErrorCode error_code(Fault fault) noexcept;

// How the items of a tensor are stored. The numbers are the wire's.
enum class DType : std::uint8_t {
    Bool = 1,
    Int8,
    Int16,
    Int32,
    Int64,
    UInt8,
    UInt16,
    UInt32,
    UInt64,
    Float16,
    Float32,
    Float64,
    Complex64,
    Complex128,
    BFloat16,
    Float8E4M3FN,
    Float8E5M2,
    Float8E4M3FNUZ,
    Float8E5M2FNUZ,
    Float8E8M0FNU,
    Float8E4M3,
    Float8E3M4,
    Float8E4M3B11FNUZ,
    Described = 255,  // NumPy's other dtypes; the reference in the structure carries a descr
};

// Bytes of one item; 0 for Described and for codes we do not know.
std::size_t item_size(DType dtype) noexcept;
// "float32", "bfloat16", "float8_e4m3fn"…: the name NumPy, ml_dtypes and PyTorch share.
DType dtype_named(std::string_view name) noexcept;  // Described: of no code
std::string_view name(DType dtype) noexcept;

enum class Order : std::uint8_t { C = 0, Fortran = 1 };
enum class Source : std::uint8_t { Bytes = 0, NumPy = 1, Torch = 2, DLPack = 3 };

// Application types of MessagePack's ext; bodies in docs/codec.md.
enum class Extension : std::uint8_t {
    Tuple = 1,
    BigInt = 2,
    Complex = 3,
    SurrogateText = 4,
    ByteArray = 5,
    OutOfBand = 6,
    Tensor = 7,
    NumPyScalar = 8,
    DescribedScalar = 9,
    Dataclass = 10,
};

// Writes MessagePack into a buffer of fixed size, or into one that `grow` enlarges. A failure
// (TooLarge) is permanent: later values are dropped.
class Writer {
public:
    // Returns a buffer of at least `needed` bytes that begins with the `used` bytes written so far,
    // or an empty span on failure.
    using Grow = std::span<std::byte> (*)(void* context, std::size_t used,
                                          std::size_t needed) noexcept;

    explicit Writer(std::span<std::byte> room, Grow grow = nullptr,
                    void* context = nullptr) noexcept
        : begin_(room.data()), cursor_(room.data()), end_(room.data() + room.size()), grow_(grow),
          context_(context) {}

    void nil() noexcept;
    void boolean(bool value) noexcept;
    void integer(std::int64_t value) noexcept;
    void natural(std::uint64_t value) noexcept;
    void real(double value) noexcept;
    void text(std::string_view utf8) noexcept;
    void bytes(std::span<const std::byte> data) noexcept;
    void array(std::size_t count) noexcept;  // `count` values follow
    void map(std::size_t count) noexcept;    // `count` pairs of values follow
    void extension(Extension type, std::span<const std::byte> body) noexcept;
    void complex(double real, double imaginary) noexcept;

    // Opens and closes an ext; its body is written by the calls above in between. May be nested.
    [[nodiscard]] std::size_t begin_extension(Extension type) noexcept;
    void end_extension(std::size_t mark) noexcept;

    // Raw bytes, without a marker.
    void raw(std::span<const std::byte> data) noexcept;

    void clear() noexcept;
    void fail(Fault fault) noexcept { fault_ = fault; }
    [[nodiscard]] Fault fault() const noexcept { return fault_; }
    [[nodiscard]] std::size_t size() const noexcept {
        return static_cast<std::size_t>(cursor_ - begin_);
    }
    [[nodiscard]] std::span<const std::byte> written() const noexcept { return {begin_, size()}; }

private:
    bool reserve(std::size_t bytes) noexcept;
    void head(std::uint8_t marker, std::uint64_t value, std::size_t bytes) noexcept;
    void length(std::size_t count, std::uint8_t short_marker, std::size_t short_limit,
                std::uint8_t marker8, std::uint8_t marker16) noexcept;

    std::byte* begin_;
    std::byte* cursor_;
    std::byte* end_;
    Grow grow_;
    void* context_;
    Fault fault_ = Fault::None;
};

enum class Kind : std::uint8_t {
    Nil,
    Boolean,
    Integer,
    Natural,  // only above 2^63-1; smaller ones are Integer
    Real,
    Text,
    Bytes,
    Array,
    Map,
    Extension,
};

// One step through the structure. `bytes` lies in the buffer that is read.
struct Token {
    Kind kind = Kind::Nil;
    Extension extension = Extension::Tuple;  // of an Extension; the type may be unknown to us
    union {
        bool boolean;
        std::int64_t integer;
        std::uint64_t natural;
        double real;
        std::size_t count = 0;  // values of an Array, pairs of a Map
    };
    std::span<const std::byte> bytes;  // of Text (UTF-8, unchecked), Bytes, Extension (its body)

    [[nodiscard]] std::string_view text() const noexcept {
        return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
    }
};

// Reads MessagePack, one token at a time, from untrusted bytes that another process may be
// changing: each byte is read once and checked before use. A failure is permanent.
class Reader {
public:
    Reader() noexcept = default;
    explicit Reader(std::span<const std::byte> data) noexcept
        : cursor_(data.data()), end_(data.data() + data.size()) {}

    // False at the end, and after a fault.
    bool next(Token& token) noexcept;
    // Skips one value with everything inside it.
    bool skip() noexcept;

    [[nodiscard]] bool at_end() const noexcept { return cursor_ == end_; }
    [[nodiscard]] std::size_t remaining() const noexcept {
        return static_cast<std::size_t>(end_ - cursor_);
    }
    [[nodiscard]] Fault fault() const noexcept { return fault_; }

private:
    bool fail(Fault fault) noexcept;
    template <typename T>
    bool number(T& value) noexcept;
    template <typename T>
    bool sized(Token& token, Kind kind) noexcept;
    template <typename T>
    bool container(Token& token, Kind kind) noexcept;
    template <typename T>
    bool extension(Token& token) noexcept;
    bool span(Token& token, Kind kind, std::size_t bytes) noexcept;
    bool counted(Token& token, Kind kind, std::size_t count) noexcept;
    bool extension_body(Token& token, std::size_t bytes) noexcept;
    bool wide(Token& token, std::uint8_t marker) noexcept;

    const std::byte* cursor_ = nullptr;
    const std::byte* end_ = nullptr;
    Fault fault_ = Fault::None;
};

// A tensor to send. Shape and strides are borrowed until tensor() returns, data until write().
struct TensorSource {
    DType dtype = DType::UInt8;
    Source source = Source::NumPy;
    std::span<const std::int64_t> shape;
    std::span<const std::int64_t> strides = {};  // in bytes, any sign; empty: C order
    const void* data = nullptr;
    std::size_t item_size = 0;  // of a Described dtype; otherwise it follows from the dtype
};

// A received tensor. Its data lies in the message.
struct TensorView {
    DType dtype = DType::UInt8;
    Order order = Order::C;
    Source source = Source::Bytes;
    std::uint8_t ndim = 0;
    std::array<std::int64_t, kMaxDims> dims;  // the first ndim
    std::span<const std::byte> data;

    [[nodiscard]] std::span<const std::int64_t> shape() const noexcept {
        return {dims.data(), ndim};
    }
};

// Collects one message and writes it. clear() keeps its memory: reuse one object. Throws
// std::bad_alloc only; other failures are in structure().fault().
class MessageWriter {
public:
    MessageWriter();
    MessageWriter(const MessageWriter&) = delete;  // the structure's writer points into it
    MessageWriter& operator=(const MessageWriter&) = delete;
    ~MessageWriter();

    [[nodiscard]] Writer& structure() noexcept { return structure_; }

    // Adds a payload and its table entry; the index is what an ext Tensor refers to.
    std::uint32_t add(const TensorSource& source);
    // The same, and writes the reference into the structure, where a value is due.
    void tensor(const TensorSource& source);
    // A bytes value: in the structure if shorter than kOutOfBand, otherwise out of band and
    // borrowed until write().
    void bytes(std::span<const std::byte> data);

    [[nodiscard]] bool has_tensors() const noexcept { return !payloads_.empty(); }
    // Size of the whole message, for what was added so far.
    [[nodiscard]] std::uint64_t nbytes() const noexcept;
    // Copies the message to `out`: nbytes() bytes, 64-byte aligned when has_tensors(). Each payload
    // is copied once, strided ones are made contiguous on the way.
    void write(std::byte* out, bool pickle = false) const noexcept;

    // Empties the message. Memory above `keep` bytes is freed.
    void clear(std::size_t keep = std::size_t{1} << 20U) noexcept;

private:
    struct Payload {
        const std::byte* data;
        std::uint64_t nbytes;
        std::size_t item_size;
        std::uint32_t first_dim;
        std::uint32_t first_stride;
        DType dtype;
        Source source;
        Order order;
        std::uint8_t ndim;
        bool strided;
    };

    static std::span<std::byte> grow(void* context, std::size_t used, std::size_t needed) noexcept;
    [[nodiscard]] std::uint64_t table_offset() const noexcept;
    [[nodiscard]] std::uint64_t payload_offset() const noexcept;
    std::byte* write_table(std::byte* at) const noexcept;
    void write_payload(const Payload& payload, std::byte* at) const noexcept;

    std::unique_ptr<std::byte[]> buffer_;
    std::size_t capacity_;
    Writer structure_;
    std::vector<Payload> payloads_;
    std::vector<std::int64_t> dims_;
    std::vector<std::int64_t> strides_;
};

// A message in memory whose header has been checked. Borrows the bytes.
class MessageReader {
public:
    MessageReader() noexcept = default;

    // The structure: one value, which must be consumed whole, see Reader::at_end().
    [[nodiscard]] Reader structure() const noexcept { return Reader(structure_); }
    [[nodiscard]] std::span<const std::byte> structure_bytes() const noexcept { return structure_; }
    [[nodiscard]] bool is_pickle() const noexcept { return pickle_; }
    [[nodiscard]] std::uint32_t tensors() const noexcept { return tensors_; }

    // The tensor of table entry `index`. For a Described dtype the item size is unknown here: the
    // caller must check that shape and item size give data.size().
    Fault tensor(std::uint64_t index, TensorView& view) const noexcept;

private:
    friend Fault open(std::span<const std::byte> data, MessageReader& message) noexcept;

    std::span<const std::byte> data_;
    std::span<const std::byte> structure_;
    std::uint64_t table_ = 0;
    std::uint32_t tensors_ = 0;
    bool pickle_ = false;
};

// Checks the header of the message at the start of `data`.
Fault open(std::span<const std::byte> data, MessageReader& message) noexcept;

// The index in the body of an ext Tensor, and the descr of a Described dtype behind it (else
// empty).
Fault tensor_reference(std::span<const std::byte> body, std::uint64_t& index,
                       std::span<const std::byte>& descr) noexcept;

// Walks the whole message, including ext bodies, and checks every tensor that it refers to. Reads
// neither payloads nor the inside of a pickle.
Fault check(std::span<const std::byte> data) noexcept;

}  // namespace penstock::codec
