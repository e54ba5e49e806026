// A Store as `penstock info` shows it, read without attaching.
#include "penstock/store.hpp"
#include "store/control.hpp"

namespace penstock {

StoreInfo inspect_store(const std::string& name) {
    detail::Visit visit(name);
    if (visit.header().kind != static_cast<std::uint32_t>(Kind::Store)) {
        throw Error(ErrorCode::Incompatible, "'" + name + "' is not a store");
    }
    const detail::StoreShape shape = detail::store_shape_of(visit.header());
    const detail::StoreView view(shape, visit.control());
    detail::MultiWord words;
    words.attach(visit.control(), shape.control_bytes() / sizeof(layout::Word), view.operations(),
                 shape.members, 0);
    const detail::Heap heap(shape.heap, view.heap_control(), words, visit.file(),
                            visit.header().payload_offset);
    StoreInfo info;
    info.segment = detail::summarize(visit, name);
    info.stats = detail::read_store_stats(view, words, heap);
    info.stats.reserved_bytes = info.segment.reserved_bytes;
    return info;
}

}  // namespace penstock
