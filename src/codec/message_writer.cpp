// Collecting one message (structure, tensor table, borrowed payloads) and writing it in one go.
#include <algorithm>
#include <cstring>
#include <new>

#include "codec/layout.hpp"
#include "codec/strided_copy.hpp"
#include "penstock/codec.hpp"

namespace penstock::codec {
namespace {

using layout::align_up;

constexpr std::size_t kFirstCapacity = 1024;
constexpr std::int64_t kKindBytes = 0;  // in the body of an ext OutOfBand

// Whether the items are contiguous, with the last index fastest (C) or the first (Fortran). Strides
// are ignored for one item or none.
bool is_contiguous(std::span<const std::int64_t> shape, std::span<const std::int64_t> strides,
                   std::size_t item_size, Order order) noexcept {
    auto expected = static_cast<std::int64_t>(item_size);
    const std::size_t dims = shape.size();
    for (std::size_t i = 0; i < dims; ++i) {
        const std::size_t dim = order == Order::C ? dims - 1 - i : i;
        if (shape[dim] == 0) {
            return true;
        }
        if (shape[dim] != 1 && strides[dim] != expected) {
            return false;
        }
        expected *= shape[dim];
    }
    return true;
}

std::uint64_t product(std::span<const std::int64_t> shape, std::size_t item_size) noexcept {
    std::uint64_t bytes = item_size;
    for (const std::int64_t size : shape) {
        bytes *= static_cast<std::uint64_t>(size);
    }
    return bytes;
}

std::byte* fill_zero(std::byte* from, std::byte* to) noexcept {
    std::memset(from, 0, static_cast<std::size_t>(to - from));
    return to;
}

template <typename T>
std::byte* put(std::byte* at, const T& value) noexcept {
    std::memcpy(at, &value, sizeof(T));
    return at + sizeof(T);
}

}  // namespace

MessageWriter::MessageWriter()
    : buffer_(new std::byte[kFirstCapacity]), capacity_(kFirstCapacity),
      structure_({buffer_.get(), kFirstCapacity}, &MessageWriter::grow, this) {}

MessageWriter::~MessageWriter() = default;

std::span<std::byte> MessageWriter::grow(void* context, std::size_t used,
                                         std::size_t needed) noexcept {
    auto& self = *static_cast<MessageWriter*>(context);
    const std::size_t capacity = std::max(needed, 2 * self.capacity_);
    std::unique_ptr<std::byte[]> larger(new (std::nothrow) std::byte[capacity]);
    if (larger == nullptr) {
        return {};
    }
    std::memcpy(larger.get(), self.buffer_.get(), used);
    self.buffer_ = std::move(larger);
    self.capacity_ = capacity;
    return {self.buffer_.get(), capacity};
}

void MessageWriter::clear(std::size_t keep) noexcept {
    payloads_.clear();
    dims_.clear();
    strides_.clear();
    if (capacity_ > keep && capacity_ > kFirstCapacity) {
        std::unique_ptr<std::byte[]> smaller(new (std::nothrow) std::byte[kFirstCapacity]);
        if (smaller != nullptr) {
            buffer_ = std::move(smaller);
            capacity_ = kFirstCapacity;
            structure_ = Writer({buffer_.get(), capacity_}, &MessageWriter::grow, this);
        }
    }
    structure_.clear();
}

std::uint32_t MessageWriter::add(const TensorSource& source) {
    if (source.shape.size() > kMaxDims) {
        structure_.fail(Fault::BadTensor);
        return 0;
    }
    const std::size_t item =
        source.dtype == DType::Described ? source.item_size : item_size(source.dtype);
    const auto is_in = [&](Order order) {
        return is_contiguous(source.shape, source.strides, item, order);
    };
    const bool in_c_order = source.strides.empty() || is_in(Order::C);
    const bool in_fortran_order = !in_c_order && is_in(Order::Fortran);
    const Payload payload{
        .data = static_cast<const std::byte*>(source.data),
        .nbytes = product(source.shape, item),
        .item_size = item,
        .first_dim = static_cast<std::uint32_t>(dims_.size()),
        .first_stride = static_cast<std::uint32_t>(strides_.size()),
        .dtype = source.dtype,
        .source = source.source,
        .order = in_fortran_order ? Order::Fortran : Order::C,
        .ndim = static_cast<std::uint8_t>(source.shape.size()),
        .strided = !in_c_order && !in_fortran_order,
    };
    dims_.insert(dims_.end(), source.shape.begin(), source.shape.end());
    if (payload.strided) {
        strides_.insert(strides_.end(), source.strides.begin(), source.strides.end());
    }
    payloads_.push_back(payload);
    return static_cast<std::uint32_t>(payloads_.size() - 1);
}

void MessageWriter::tensor(const TensorSource& source) {
    const std::uint32_t index = add(source);
    const std::size_t mark = structure_.begin_extension(Extension::Tensor);
    structure_.natural(index);
    structure_.end_extension(mark);
}

void MessageWriter::bytes(std::span<const std::byte> data) {
    if (data.size() < kOutOfBand) {
        structure_.bytes(data);
        return;
    }
    const auto size = static_cast<std::int64_t>(data.size());
    const std::uint32_t index = add(
        {.dtype = DType::UInt8, .source = Source::Bytes, .shape = {&size, 1}, .data = data.data()});
    const std::size_t mark = structure_.begin_extension(Extension::OutOfBand);
    structure_.array(2);
    structure_.integer(kKindBytes);
    structure_.natural(index);
    structure_.end_extension(mark);
}

std::uint64_t MessageWriter::table_offset() const noexcept {
    return align_up(sizeof(layout::Header) + structure_.size(), sizeof(std::uint64_t));
}

std::uint64_t MessageWriter::payload_offset() const noexcept {
    const std::uint64_t table = payloads_.size() * sizeof(layout::TensorEntry);
    const std::uint64_t dims = dims_.size() * sizeof(std::uint64_t);
    return align_up(table_offset() + table + dims, kAlignment);
}

std::uint64_t MessageWriter::nbytes() const noexcept {
    if (payloads_.empty()) {
        return sizeof(layout::Header) + structure_.size();
    }
    std::uint64_t end = payload_offset();
    for (const Payload& payload : payloads_) {
        end = align_up(end, kAlignment) + payload.nbytes;
    }
    return end;
}

std::byte* MessageWriter::write_table(std::byte* at) const noexcept {
    std::uint64_t offset = payload_offset();
    for (const Payload& payload : payloads_) {
        offset = align_up(offset, kAlignment);
        at = put(at, layout::TensorEntry{
                         .offset = offset,
                         .nbytes = payload.nbytes,
                         .first_dim = payload.first_dim,
                         .dtype = static_cast<std::uint8_t>(payload.dtype),
                         .ndim = payload.ndim,
                         .order = static_cast<std::uint8_t>(payload.order),
                         .source = static_cast<std::uint8_t>(payload.source),
                     });
        offset += payload.nbytes;
    }
    const std::size_t dims = dims_.size() * sizeof(std::int64_t);
    if (dims > 0) {
        std::memcpy(at, dims_.data(), dims);
    }
    return at + dims;
}

void MessageWriter::write_payload(const Payload& payload, std::byte* at) const noexcept {
    if (payload.nbytes == 0) {
        return;
    }
    if (!payload.strided) {
        std::memcpy(at, payload.data, payload.nbytes);
        return;
    }
    strided_copy(at, payload.data, std::span(dims_).subspan(payload.first_dim, payload.ndim),
                 std::span(strides_).subspan(payload.first_stride, payload.ndim),
                 payload.item_size);
}

void MessageWriter::write(std::byte* out, bool pickle) const noexcept {
    const std::span<const std::byte> structure = structure_.written();
    std::byte* at = put(out, layout::Header{
                                 .magic = layout::kMagic,
                                 .version = layout::kVersion,
                                 .flags = pickle ? layout::kFlagPickle : std::uint8_t{0},
                                 .tensors = static_cast<std::uint32_t>(payloads_.size()),
                                 .structure = structure.size(),
                             });
    if (!structure.empty()) {
        std::memcpy(at, structure.data(), structure.size());
        at += structure.size();
    }
    if (payloads_.empty()) {
        return;
    }
    at = fill_zero(at, out + table_offset());
    at = write_table(at);
    for (const Payload& payload : payloads_) {
        at = fill_zero(at, out + align_up(static_cast<std::uint64_t>(at - out), kAlignment));
        write_payload(payload, at);
        at += payload.nbytes;
    }
}

}  // namespace penstock::codec
