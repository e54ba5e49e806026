// penstock._core.TrajectoryBatch: columns into arrays of any type that speaks DLPack or the buffer
// protocol, groups as values.
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "codec.hpp"
#include "errors.hpp"
#include "trajectories.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

using codec::DType;
using AnyArray = nb::ndarray<nb::device::cpu>;

Column parse_column(const std::string& text) {
    if (const auto column = find_column(text)) {
        return *column;
    }
    std::string known;
    for (std::size_t at = 0; at < kColumns; ++at) {
        known += (at == 0 ? "" : ", ") + std::string(name(static_cast<Column>(at)));
    }
    raise_error(ErrorCode::InvalidArgument,
                "there is no column '" + text + "'; a group may have " + known);
}

void check_open(const TrajectoryBatch& batch) {
    if (!batch.is_open()) {
        raise_error(ErrorCode::Closed, "this batch was acknowledged or nacked");
    }
}

// DLPack types that a column may be converted to.
struct ArrayType {
    nb::dlpack::dtype_code code;
    std::uint8_t bits;
    DType dtype;
};

using Code = nb::dlpack::dtype_code;
constexpr ArrayType kArrayTypes[] = {
    {Code::Bool, 8, DType::Bool},      {Code::Int, 8, DType::Int8},
    {Code::Int, 16, DType::Int16},     {Code::Int, 32, DType::Int32},
    {Code::Int, 64, DType::Int64},     {Code::UInt, 8, DType::UInt8},
    {Code::UInt, 16, DType::UInt16},   {Code::UInt, 32, DType::UInt32},
    {Code::Float, 16, DType::Float16}, {Code::Float, 32, DType::Float32},
    {Code::Float, 64, DType::Float64}, {Code::Bfloat, 16, DType::BFloat16},
};

template <typename Array>
std::optional<DType> dtype_of(const Array& array) {
    const auto asked = array.dtype();
    for (const ArrayType& type : kArrayTypes) {
        if (asked.lanes == 1 && asked.code == static_cast<std::uint8_t>(type.code) &&
            asked.bits == type.bits) {
            return type.dtype;
        }
    }
    return std::nullopt;
}

// All dimensions behind the first `leading` must be contiguous.
template <typename Array>
bool is_contiguous(const Array& array, std::size_t leading) {
    std::int64_t expected = 1;
    for (std::size_t dim = array.ndim(); dim-- > leading;) {
        if (array.shape(dim) > 1 && array.stride(dim) != expected) {
            return false;
        }
        expected *= static_cast<std::int64_t>(array.shape(dim));
    }
    return true;
}

template <typename Array>
OutputArray output_of(const std::string& column, const Array& array, bool is_padded) {
    const std::optional<DType> dtype = dtype_of(array);
    const std::size_t leading = is_padded ? 1 : 0;
    if (!dtype || array.ndim() < leading + 1 || array.ndim() > leading + 2 ||
        !is_contiguous(array, leading)) {
        raise_error(ErrorCode::InvalidArgument,
                    "the array for column '" + column + "' must hold numbers in rows that are " +
                        "contiguous: " + (is_padded ? "(sequences, tokens)" : "(tokens)") +
                        ", with one more dimension for a distill column");
    }
    OutputArray out;
    out.dtype = *dtype;
    out.data = static_cast<std::byte*>(array.data());
    out.total_items = array.size();
    if (is_padded) {
        const std::size_t rows = array.shape(0);
        out.row_items = rows == 0 ? 0 : array.size() / rows;
        out.row_bytes = static_cast<std::uint64_t>(array.stride(0)) * codec::item_size(*dtype);
    }
    return out;
}

template <typename Fill>
void fill_without_gil(const Fill& fill) {
    const Status status = [&] {
        const WithoutGil without_gil;
        return fill();
    }();
    check(status);
}

// Name, array and the value behind the end of a sequence.
using PaddedColumn = std::tuple<std::string, AnyArray, double>;

using Bytes = nb::ndarray<std::uint8_t, nb::c_contig, nb::device::cpu>;
using Ints32 = nb::ndarray<std::int32_t, nb::c_contig, nb::device::cpu>;
using Ints = nb::ndarray<std::int64_t, nb::c_contig, nb::device::cpu>;
using Reals = nb::ndarray<double, nb::c_contig, nb::device::cpu>;

template <typename Array>
auto span_of(const Array& array, std::size_t needed) {
    if (array.size() < needed) {
        raise_error(ErrorCode::TooLarge, "an array of " + std::to_string(array.size()) +
                                             " values has no room for " + std::to_string(needed));
    }
    return std::span(array.data(), needed);
}

nb::object group_of(const TrajectoryBatch& batch, std::size_t index) {
    check_open(batch);
    if (index >= batch.groups()) {
        raise_error(ErrorCode::InvalidArgument, "there is no such group in this batch");
    }
    const auto bytes = batch.message(index);
    return decode(bytes.data(), bytes.size(), nb::none(), Codec::Typed);
}

}  // namespace

void bind_trajectory_batch(nb::module_& module) {
    nb::class_<TrajectoryBatch>(module, "TrajectoryBatch", nb::is_weak_referenceable())
        .def_prop_ro("is_open", &TrajectoryBatch::is_open)
        .def("__len__", &TrajectoryBatch::groups)
        .def_prop_ro("sequences",
                     [](const TrajectoryBatch& batch) { return batch.lengths().size(); })
        .def_prop_ro("longest", &TrajectoryBatch::longest)
        .def_prop_ro("total", &TrajectoryBatch::total)
        .def("group", &group_of, nb::arg("index"))
        .def("title",
             [](const TrajectoryBatch& batch, std::size_t index) {
                 check_open(batch);
                 return batch.group(index).title();
             })
        .def("longest_of",
             [](const TrajectoryBatch& batch, std::size_t index) {
                 check_open(batch);
                 return batch.group(index).longest();
             })
        .def(
            "unfit",
            [](const TrajectoryBatch& batch, const std::string& column,
               const std::optional<std::string>& dtype) {
                check_open(batch);
                const Column which = parse_column(column);
                const WithoutGil without_gil;
                return batch.unfit(
                    which, dtype ? std::optional(codec::dtype_named(*dtype)) : std::nullopt);
            },
            nb::arg("column"), nb::arg("dtype").none())
        .def("is_restored",
             [](const TrajectoryBatch& batch, std::size_t index) {
                 check_open(batch);
                 return batch.is_restored(index);
             })
        .def("message",
             [](const TrajectoryBatch& batch, std::size_t index) {
                 check_open(batch);
                 const auto bytes = batch.message(index);
                 return nb::bytes(bytes.data(), bytes.size());
             })
        .def("deliveries",
             [](const TrajectoryBatch& batch) {
                 std::vector<unsigned> found;
                 for (std::size_t at = 0; at < batch.groups(); ++at) {
                     found.push_back(batch.deliveries(at));
                 }
                 return found;
             })
        .def("has", [](const TrajectoryBatch& batch,
                       const std::string& column) { return batch.has(parse_column(column)); })
        .def("is_used",
             [](const TrajectoryBatch& batch, const std::string& column) {
                 return batch.is_used(parse_column(column));
             })
        .def("dtype",
             [](const TrajectoryBatch& batch, const std::string& column) {
                 const auto dtype = batch.dtype(parse_column(column));
                 check(dtype.status());
                 return std::string(codec::name(*dtype));
             })
        .def("width",
             [](const TrajectoryBatch& batch, const std::string& column) {
                 const auto width = batch.width(parse_column(column));
                 check(width.status());
                 return *width;
             })
        .def(
            "fill_padded",
            [](const TrajectoryBatch& batch, const std::vector<PaddedColumn>& columns) {
                std::vector<std::pair<Column, OutputArray>> outputs;
                for (const auto& [column, array, pad] : columns) {
                    outputs.emplace_back(parse_column(column), output_of(column, array, true));
                }
                fill_without_gil([&] {
                    for (std::size_t at = 0; at < outputs.size(); ++at) {
                        const auto& [column, out] = outputs[at];
                        const double pad = std::get<double>(columns[at]);
                        if (Status filled = batch.fill_padded(column, out, pad); !filled) {
                            return filled;
                        }
                    }
                    return Status::ok();
                });
            },
            nb::arg("columns").noconvert())
        .def(
            "fill_packed",
            [](const TrajectoryBatch& batch, const std::string& column, const AnyArray& array) {
                const OutputArray out = output_of(column, array, false);
                const Column which = parse_column(column);
                fill_without_gil([&] { return batch.fill_packed(which, out); });
            },
            nb::arg("column"), nb::arg("array").noconvert())
        .def(
            "fill_padding_mask",
            [](const TrajectoryBatch& batch, const Bytes& array, std::uint64_t row_items) {
                if (row_items < batch.longest()) {
                    raise_error(ErrorCode::TooLarge, "the rows of the mask are too short");
                }
                const auto out = span_of(array, batch.lengths().size() * row_items);
                batch.fill_padding_mask(reinterpret_cast<std::byte*>(out.data()), row_items);
            },
            nb::arg("array").noconvert(), nb::arg("row_items"))
        .def(
            "fill_positions",
            [](const TrajectoryBatch& batch, const Ints& array) {
                batch.fill_positions(span_of(array, batch.total()));
            },
            nb::arg("array").noconvert())
        .def(
            "fill_cu_seqlens",
            [](const TrajectoryBatch& batch, const Ints32& array) {
                batch.fill_cu_seqlens(span_of(array, batch.lengths().size() + 1));
            },
            nb::arg("array").noconvert())
        .def(
            "fill_group_index",
            [](const TrajectoryBatch& batch, const Ints& array) {
                batch.fill_group_index(span_of(array, batch.lengths().size()));
            },
            nb::arg("array").noconvert())
        .def(
            "fill_lengths",
            [](const TrajectoryBatch& batch, const Ints& array) {
                const std::vector<std::uint64_t>& lengths = batch.lengths();
                std::ranges::transform(
                    lengths, span_of(array, lengths.size()).begin(),
                    [](std::uint64_t length) { return static_cast<std::int64_t>(length); });
            },
            nb::arg("array").noconvert())
        .def(
            "fill_versions",  // returns the oldest
            [](const TrajectoryBatch& batch, const Ints& array) {
                const auto out = span_of(array, batch.lengths().size());
                batch.fill_versions(out);
                return out.empty() ? 0 : *std::ranges::min_element(out);
            },
            nb::arg("array").noconvert())
        .def(
            "fill_scores",
            [](const TrajectoryBatch& batch, const Reals& array) {
                check(batch.fill_scores(span_of(array, batch.lengths().size())));
            },
            nb::arg("array").noconvert())
        .def(
            "ack",
            [](TrajectoryBatch& batch, nb::handle step) {
                const std::uint64_t version = parse_natural(step, "step", "an int");
                check(batch.check_held());
                batch.ack(version);
            },
            nb::arg("step").none())
        .def("nack", &TrajectoryBatch::nack)
        .def("dead_letter", &TrajectoryBatch::dead_letter, nb::arg("index"))
        .def("untake", &TrajectoryBatch::untake);
}

}  // namespace penstock::py
