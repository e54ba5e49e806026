// A message in memory: its header, its tensors, and a walk through all of it.
// Offsets and sizes are compared in an order in which no sum can overflow.
#include <limits>

#include "codec/layout.hpp"
#include "penstock/codec.hpp"
#include "segment/words/read_once.hpp"

namespace penstock::codec {
namespace {

using layout::align_up;

constexpr std::uint64_t kMaxBytes = std::numeric_limits<std::int64_t>::max();

// a * b, or false if the product is above kMaxBytes.
bool multiply(std::uint64_t& a, std::uint64_t b) noexcept {
    if (b != 0 && a > kMaxBytes / b) {
        return false;
    }
    a *= b;
    return true;
}

// Copies the sizes into the view, and computes their product in `items`. The product without zeros
// must fit as well, because NumPy and PyTorch compute it.
bool read_dims(const std::byte* at, TensorView& view, std::uint64_t item,
               std::uint64_t& nbytes) noexcept {
    std::uint64_t whole = item == 0 ? 1 : item;
    bool is_empty = false;
    for (std::size_t dim = 0; dim < view.ndim; ++dim) {
        const auto size = detail::read_once<std::uint64_t>(at + dim * sizeof(std::uint64_t));
        is_empty = is_empty || size == 0;
        if (!multiply(whole, size == 0 ? 1 : size)) {
            return false;
        }
        view.dims[dim] = static_cast<std::int64_t>(size);
    }
    nbytes = is_empty ? 0 : whole;
    return true;
}

}  // namespace

Fault open(std::span<const std::byte> data, MessageReader& message) noexcept {
    if (data.size() < sizeof(layout::Header)) {
        return Fault::Truncated;
    }
    const auto header = detail::read_once<layout::Header>(data.data());
    if (header.magic != layout::kMagic) {
        return Fault::NotAMessage;
    }
    if (header.version != layout::kVersion || (header.flags & ~layout::kFlagPickle) != 0) {
        return Fault::OtherVersion;
    }
    std::uint64_t left = data.size() - sizeof(layout::Header);
    if (header.structure > left) {
        return Fault::Truncated;
    }
    const std::uint64_t table =
        align_up(sizeof(layout::Header) + header.structure, sizeof(std::uint64_t));
    if (header.tensors > 0) {
        left = table > data.size() ? 0 : data.size() - table;
        if (header.tensors > left / sizeof(layout::TensorEntry)) {
            return Fault::Truncated;
        }
    }
    message.data_ = data;
    message.structure_ =
        data.subspan(sizeof(layout::Header), static_cast<std::size_t>(header.structure));
    message.table_ = table;
    message.tensors_ = header.tensors;
    message.pickle_ = (header.flags & layout::kFlagPickle) != 0;
    return Fault::None;
}

Fault MessageReader::tensor(std::uint64_t index, TensorView& view) const noexcept {
    if (index >= tensors_) {
        return Fault::BadTensor;
    }
    const std::uint64_t dims = table_ + tensors_ * sizeof(layout::TensorEntry);
    const auto entry = detail::read_once<layout::TensorEntry>(data_.data() + table_ +
                                                              index * sizeof(layout::TensorEntry));
    const auto dtype = static_cast<DType>(entry.dtype);
    const std::uint64_t item = item_size(dtype);
    if (item == 0 && dtype != DType::Described) {
        return Fault::UnknownDType;
    }
    if (entry.ndim > kMaxDims || entry.order > static_cast<std::uint8_t>(Order::Fortran) ||
        entry.source > static_cast<std::uint8_t>(Source::DLPack) ||
        entry.offset % kAlignment != 0 || entry.offset > data_.size() ||
        entry.nbytes > data_.size() - entry.offset) {
        return Fault::BadTensor;
    }
    if (std::uint64_t{entry.first_dim} + entry.ndim >
        (data_.size() - dims) / sizeof(std::uint64_t)) {
        return Fault::BadTensor;
    }
    view.dtype = dtype;
    view.order = static_cast<Order>(entry.order);
    view.source = static_cast<Source>(entry.source);
    view.ndim = entry.ndim;
    std::uint64_t nbytes = 0;
    const std::byte* const first = data_.data() + dims + entry.first_dim * sizeof(std::uint64_t);
    if (!read_dims(first, view, item, nbytes) || (item != 0 && nbytes != entry.nbytes)) {
        return Fault::BadTensor;
    }
    view.data = data_.subspan(static_cast<std::size_t>(entry.offset),
                              static_cast<std::size_t>(entry.nbytes));
    return Fault::None;
}

Fault tensor_reference(std::span<const std::byte> body, std::uint64_t& index,
                       std::span<const std::byte>& descr) noexcept {
    Reader in(body);
    Token token;
    if (!in.next(token)) {
        return Fault::BadExtension;
    }
    const bool has_descr = token.kind == Kind::Array && token.count == 2;
    if (has_descr && !in.next(token)) {
        return Fault::BadExtension;
    }
    if (token.kind != Kind::Integer || token.integer < 0) {
        return Fault::BadExtension;
    }
    index = static_cast<std::uint64_t>(token.integer);
    descr = body.subspan(body.size() - in.remaining());
    const bool whole = has_descr ? in.skip() && in.at_end() : in.at_end();
    return whole ? Fault::None : Fault::BadExtension;
}

}  // namespace penstock::codec
