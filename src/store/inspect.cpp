// A Store as `penstock info` shows it, read without attaching.
#include "penstock/store.hpp"

#include <cstddef>

#include "store/control.hpp"

namespace penstock {
namespace detail {
namespace {

StoreStats stats_of(Visit& visit, const StoreShape& shape) {
    std::byte* const control = visit.control();
    const StoreView view(shape, control);
    MultiWord words;
    words.attach(control, shape.control_bytes() / sizeof(layout::Word), view.operations(),
                 shape.participants, 0);
    const Heap heap(shape.heap, view.heap_control(), words, visit.file(),
                    visit.header().payload_offset);
    return read_store_stats(view, words, heap);
}

// A participant called persist() after the store was created.
bool was_persisted(const Visit& visit) {
    std::uint64_t stays = 0;
    const std::uint64_t at = visit.header().control_offset + offsetof(layout::StoreControl, state) +
                             offsetof(layout::StoreState, stays);
    return visit.file().read(at, &stays, sizeof stays) && stays != 0;
}

}  // namespace

KeptData kept_objects(Visit& visit) {
    const StoreShape shape = store_shape_of(visit.header());
    if (!shape.persistent && !was_persisted(visit)) return {};
    const StoreStats stats = stats_of(visit, shape);
    KeptData kept;
    kept.objects = stats.objects;
    kept.bytes = stats.object_bytes;
    kept.persistent = true;
    return kept;
}

}  // namespace detail

StoreInfo inspect_store(const std::string& name) {
    detail::Visit visit(name);
    if (visit.header().kind != static_cast<std::uint32_t>(Kind::Store)) {
        throw Error(ErrorCode::Incompatible, "'" + name + "' is not a store");
    }
    StoreInfo info;
    info.segment = detail::summarize(visit, name);
    info.stats = detail::stats_of(visit, detail::store_shape_of(visit.header()));
    detail::read_segment_stats(info.stats, visit.header(), visit.participants(), visit.file());
    return info;
}

}  // namespace penstock
