// A group as a message: a map of typed codec whose arrays hold the values of all its sequences in
// a row, and `lengths` that says where each sequence ends. docs/codec.md has the table of keys.
#include <algorithm>
#include <cstring>

#include "codec/references.hpp"
#include "penstock/trajectories.hpp"
#include "segment/text.hpp"
#include "segment/words/read_once.hpp"
#include "trajectories/dtypes.hpp"
#include "trajectories/layout.hpp"

namespace penstock {
namespace {

using codec::DType;
using codec::Extension;
using codec::Fault;
using codec::Kind;
using codec::TensorView;
using codec::Token;

constexpr std::array<std::string_view, kColumns> kNames = {"tokens",
                                                           "masks",
                                                           "advantages",
                                                           "ref_logprobs",
                                                           "inference_logprobs",
                                                           "distill_token_ids",
                                                           "distill_logprobs"};
constexpr std::int64_t kFormat = 1;
constexpr std::size_t kMaxShown = 64;  // bytes of a message's text that are quoted in an error
// Optional keys of any type, which batches ignore.
constexpr std::array<std::string_view, 8> kRest = {
    "env_id",    "environment_id",  "messages", "generation_params",
    "overrides", "group_overrides", "images",   "plain"};

constexpr bool is_distilled(Column column) noexcept {
    return column == Column::DistillTokenIds || column == Column::DistillLogprobs;
}

constexpr bool wants_integers(Column column) noexcept {
    return column == Column::Tokens || column == Column::Masks || column == Column::DistillTokenIds;
}

std::string shape_text(const TensorView& tensor) {
    std::string text = "(";
    for (const std::int64_t size : tensor.shape()) text += std::to_string(size) + ", ";
    return text + ")";
}

// Walks the map once, keeps what it finds, and checks it for consistency at the end.
class GroupReader {
public:
    explicit GroupReader(GroupView& group) : group_(group) {}

    Status read(std::span<const std::byte> bytes) {
        if (const Fault fault = codec::open(bytes, message_); fault != Fault::None) {
            return fault_status(fault);
        }
        if (message_.is_pickle()) return refuse("it is a pickle");
        references_.emplace(message_, bytes.size());
        codec::Reader in = message_.structure();
        Token token;
        if (!in.next(token) || token.kind != Kind::Map) return refuse("it is no map of columns");
        for (std::size_t left = token.count; left > 0; --left) {
            if (!in.next(token) || token.kind != Kind::Text) return refuse("a key is no text");
            if (Status status = entry(token.text(), in); !status) return status;
        }
        if (in.fault() != Fault::None) return fault_status(in.fault());
        return compare();
    }

private:
    Status fault_status(Fault fault) const {
        if (codec::error_code(fault) == ErrorCode::Incompatible) {
            return {ErrorCode::Incompatible, std::string(codec::sentence(fault))};
        }
        return refuse(std::string(codec::sentence(fault)));
    }

    [[nodiscard]] Status refuse(const std::string& why) const {
        return {ErrorCode::InvalidArgument, group_.title() + " is not sound: " + why};
    }

    [[nodiscard]] Status refuse(std::string_view column, const std::string& why) const {
        return {ErrorCode::InvalidArgument, "column '" +
                                                detail::printable(detail::cut(column, kMaxShown)) +
                                                "' of " + group_.title() + " " + why};
    }

    Status entry(std::string_view key, codec::Reader& in) {
        if (const auto column = find_column(key)) return per_token(*column, in);
        if (key == "scores") return per_sequence(key, group_.scores, &is_real_or_integer, in);
        if (key == "versions") return per_sequence(key, group_.versions, &is_integer, in);
        if (key == "lengths") return lengths(in);
        if (key == "distill_counts") return distill_counts(in);
        if (key == "group") return format(in);
        if (key == "environment") return text(key, group_.environment, in);
        if (key == "instance_id") return text(key, group_.instance_id, in);
        if (key == "begun") return begun(in);
        if (std::ranges::find(kRest, key) == kRest.end()) {
            return refuse(key, "is unknown; a group has no such field");
        }
        return in.skip() ? Status::ok() : fault_status(in.fault());
    }

    Status format(codec::Reader& in) {
        Token token;
        if (!in.next(token) || token.kind != Kind::Integer)
            return refuse("its format is no number");
        if (token.integer == kFormat) return Status::ok();
        return {ErrorCode::Incompatible, "a group of format " + std::to_string(token.integer) +
                                             ", and this is a penstock that knows format 1"};
    }

    Status text(std::string_view key, std::string& value, codec::Reader& in) {
        Token token;
        if (!in.next(token) || token.kind != Kind::Text) return refuse(key, "is no text");
        if (!detail::is_utf8(token.text())) return refuse(key, "is no UTF-8");
        value = token.text();
        return Status::ok();
    }

    Status begun(codec::Reader& in) {
        Token token;
        if (!in.next(token) || token.kind != Kind::Integer || token.integer < 0) {
            return refuse("begun", "is no version");
        }
        group_.begun = static_cast<std::uint64_t>(token.integer);
        has_begun_ = true;
        return Status::ok();
    }

    Status tensor(std::string_view key, TensorView& view, codec::Reader& in) {
        Token token;
        if (!in.next(token) || token.kind != Kind::Extension ||
            token.extension != Extension::Tensor) {
            return refuse(key, "is no array");
        }
        std::uint64_t index = 0;
        std::span<const std::byte> described;
        Fault fault = codec::tensor_reference(token.bytes, index, described);
        if (fault == Fault::None) fault = message_.tensor(index, view);
        if (fault == Fault::None) fault = references_->add(view);
        if (fault != Fault::None) return refuse(key, "is damaged: " + std::string(sentence(fault)));
        if (view.order != codec::Order::C) return refuse(key, "is in Fortran order");
        return Status::ok();
    }

    Status per_sequence(std::string_view key, std::optional<ColumnView>& place,
                        bool (*fits)(DType) noexcept, codec::Reader& in) {
        TensorView view;
        if (Status status = tensor(key, view, in); !status) return status;
        if (!fits(view.dtype)) return refuse(key, "is " + std::string(codec::name(view.dtype)));
        if (view.ndim != 1) return refuse(key, "has the shape " + shape_text(view));
        place = ColumnView{view.dtype, view.data, 1};
        return Status::ok();
    }

    Status per_token(Column column, codec::Reader& in) {
        const std::string_view key = name(column);
        TensorView view;
        if (Status status = tensor(key, view, in); !status) return status;
        const bool fits = wants_integers(column) ? is_integer(view.dtype) : is_real(view.dtype);
        if (!fits) {
            const char* const wanted = wants_integers(column) ? "integers" : "real numbers";
            return refuse(key, "is " + std::string(codec::name(view.dtype)) + ", not " + wanted);
        }
        const bool is_flat = view.ndim == 1 || (view.ndim == 2 && is_distilled(column));
        if (!is_flat) return refuse(key, "has the shape " + shape_text(view));
        const std::uint64_t width =
            view.ndim == 2 ? static_cast<std::uint64_t>(view.dims[1]) : std::uint64_t{1};
        if (width == 0) return refuse(key, "has no values for a token");
        group_.columns[static_cast<std::size_t>(column)] = ColumnView{view.dtype, view.data, width};
        return Status::ok();
    }

    Status lengths(codec::Reader& in) {
        TensorView view;
        if (Status status = tensor("lengths", view, in); !status) return status;
        if (view.dtype != DType::Int64 || view.ndim != 1) {
            return refuse("lengths", "is not one int64 for each sequence");
        }
        const std::size_t count = view.data.size() / sizeof(std::int64_t);
        if (count < 1 || count > layout::kMaxSequences) {
            return refuse("lengths", "names " + std::to_string(count) + " sequences");
        }
        group_.offsets.assign(1, 0);
        group_.offsets.reserve(count + 1);
        constexpr std::int64_t kMax = std::int64_t{1} << 40U;
        for (std::size_t at = 0; at < count; ++at) {
            const auto length =
                detail::read_once<std::int64_t>(view.data.data() + at * sizeof(std::int64_t));
            // The sum can't overflow: it is at most kMax before each addition.
            if (length < 0 || length > kMax - static_cast<std::int64_t>(group_.offsets.back())) {
                return refuse("lengths", "gives sequence " + std::to_string(at) + " " +
                                             std::to_string(length) + " tokens");
            }
            group_.offsets.push_back(group_.offsets.back() + static_cast<std::uint64_t>(length));
        }
        return Status::ok();
    }

    Status distill_counts(codec::Reader& in) {
        TensorView view;
        if (Status status = tensor("distill_counts", view, in); !status) return status;
        if (view.dtype != DType::Int32 || view.ndim != 1) {
            return refuse("distill_counts", "is not one int32 for each token");
        }
        counts_ = view.data;
        constexpr std::size_t kItem = sizeof(std::int32_t);
        for (std::size_t at = 0; at < view.data.size(); at += kItem) {
            const auto count = detail::read_once<std::int32_t>(view.data.data() + at);
            if (count < 0) return refuse("distill_counts", "has a negative number");
            distilled_ += static_cast<std::uint64_t>(count);
        }
        return Status::ok();
    }

    Status compare() {
        if (group_.offsets.empty()) return refuse("lengths", "is missing");
        if (group_.environment.empty()) return refuse("environment", "is missing");
        const std::uint64_t tokens = group_.offsets.back();
        if (!group_.columns[0]) return refuse("tokens", "is missing");
        if (counts_ && counts_->size() / sizeof(std::int32_t) != tokens) {
            return refuse("distill_counts", "is not one number for each token");
        }
        for (std::size_t at = 0; at < kColumns; ++at) {
            if (!group_.columns[at]) continue;
            Status status = compare(static_cast<Column>(at), *group_.columns[at], tokens);
            if (!status) return status;
        }
        if (!has_begun_) return refuse("begun", "is missing");
        if (Status status = compare("scores", group_.scores); !status) return status;
        return compare("versions", group_.versions);
    }

    Status compare(Column column, ColumnView& view, std::uint64_t tokens) const {
        const std::uint64_t values = view.data.size() / codec::item_size(view.dtype);
        const bool is_ragged = is_distilled(column) && counts_.has_value();
        if (is_ragged) view.width = 0;
        const std::uint64_t has = is_ragged ? values : values / view.width;
        const bool is_whole = is_ragged || values % view.width == 0;
        if (is_whole && has == (is_ragged ? distilled_ : tokens)) return Status::ok();
        return refuse(name(column), "has " + std::to_string(has) +
                                        " values where the tokens have " +
                                        std::to_string(is_ragged ? distilled_ : tokens));
    }

    Status compare(std::string_view key, const std::optional<ColumnView>& view) const {
        if (!view) return Status::ok();
        const std::uint64_t values = view->data.size() / codec::item_size(view->dtype);
        if (values == group_.sequences()) return Status::ok();
        return refuse(key, "has " + std::to_string(values) + " values for " +
                               std::to_string(group_.sequences()) + " sequences");
    }

    GroupView& group_;
    codec::MessageReader message_;
    std::optional<codec::References> references_;
    std::optional<std::span<const std::byte>> counts_;
    std::uint64_t distilled_ = 0;
    bool has_begun_ = false;
};

void write_array(codec::MessageWriter& message, std::string_view key, const ColumnSource& source,
                 std::uint64_t rows) {
    if (source.data == nullptr) return;
    const std::array<std::int64_t, 2> shape = {static_cast<std::int64_t>(rows),
                                               static_cast<std::int64_t>(source.width)};
    message.structure().text(key);
    message.tensor({.dtype = source.dtype,
                    .shape = std::span(shape).first(source.width == 1 ? 1 : 2),
                    .data = source.data});
}

}  // namespace

std::string_view name(Column column) noexcept {
    return kNames[static_cast<std::size_t>(column)];
}

std::optional<Column> find_column(std::string_view name) noexcept {
    const auto found = std::ranges::find(kNames, name);
    if (found == kNames.end()) return std::nullopt;
    return static_cast<Column>(found - kNames.begin());
}

std::uint64_t GroupView::longest() const noexcept {
    std::uint64_t longest = 0;
    for (std::size_t at = 0; at + 1 < offsets.size(); ++at) {
        longest = std::max(longest, offsets[at + 1] - offsets[at]);
    }
    return longest;
}

std::string GroupView::title() const {
    // Both texts come from another process.
    const auto quoted = [](const std::string& text) {
        return "'" + detail::printable(detail::cut(text, kMaxShown)) + "'";
    };
    const std::string group = instance_id.empty() ? "a group" : "the group " + quoted(instance_id);
    return environment.empty() ? group : group + " of " + quoted(environment);
}

Result<GroupView> read_group(std::span<const std::byte> message) {
    GroupView group;
    if (Status status = GroupReader(group).read(message); !status) return status;
    return group;
}

void write_group(const GroupSource& group, codec::MessageWriter& message) {
    const auto sources = [&](const auto& use) {
        for (std::size_t at = 0; at < kColumns; ++at) use(kNames[at], group.columns[at]);
    };
    std::size_t entries = 5;
    sources([&](auto, const ColumnSource& source) { entries += source.data != nullptr ? 1U : 0U; });
    entries += group.scores.data != nullptr ? 1U : 0U;
    entries += group.versions.data != nullptr ? 1U : 0U;
    codec::Writer& out = message.structure();
    out.map(entries);
    out.text("group");
    out.integer(kFormat);
    out.text("environment");
    out.text(group.environment);
    out.text("instance_id");
    out.text(group.instance_id);
    out.text("begun");
    out.integer(static_cast<std::int64_t>(group.begun));
    write_array(message, "lengths", {DType::Int64, group.lengths.data()}, group.lengths.size());
    std::uint64_t tokens = 0;
    for (const std::int64_t length : group.lengths) tokens += static_cast<std::uint64_t>(length);
    sources([&](std::string_view key, const ColumnSource& source) {
        write_array(message, key, source, tokens);
    });
    write_array(message, "scores", group.scores, group.lengths.size());
    write_array(message, "versions", group.versions, group.lengths.size());
}

}  // namespace penstock
