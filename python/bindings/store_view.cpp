// penstock._core.StoreView: `with store.get(key) as obj`, an object read in place. Arrays made of
// it hold its pin: it can be evicted when the last of them is gone.
#include "store_view.hpp"

#include <utility>
#include <vector>

#include "arguments.hpp"
#include "codec_numpy.hpp"
#include "codec_torch.hpp"
#include "context.hpp"
#include "errors.hpp"
#include "paged_planes.hpp"
#include "received.hpp"
#include "store_tensor.hpp"
#include "wait.hpp"

namespace penstock::py {
namespace {

// The StoreObject in a pin: the Python object that arrays keep alive.
const StoreObject& object_of(const nb::object& pin) {
    return *nb::inst_ptr<StoreObject>(pin);
}

nb::object array_of(const TensorHead& head, nb::handle owner) {
    if (head.bytes == 0) {
        raise_error(ErrorCode::Corrupt, "the object's shape and dtype contradict its bytes");
    }
    if (head.view.source == codec::Source::Torch) {
        if (nb::object tensor = decode_tensor(head.view, owner); tensor.is_valid()) {
            return tensor;
        }
    }
    // A private copy, because the description is read more than once and may change in shared
    // memory.
    const std::vector<std::byte> descr(head.descr.begin(), head.descr.end());
    return decode_array(head.view, descr, owner);
}

nb::object value_of(const nb::object& pin, Codec codec) {
    const StoreObject& object = object_of(pin);
    if (object.format() == Format::Tensor) {
        return array_of(read_tensor_head(object.meta(), object.bytes()), pin);
    }
    return view_of({object.bytes(), object.format()}, pin, codec);
}

class StoreViewBlock {
public:
    StoreViewBlock(StoreObject object, Codec codec)
        : pin_(nb::cast(std::move(object))), codec_(codec) {}

    nb::object enter() {
        if (is_entered_) {
            raise_error(ErrorCode::Busy, "a view can be entered once; get it again");
        }
        is_entered_ = true;
        return value_of(pin(), codec_);
    }
    // Arrays that outlive the block have references of their own.
    void exit(bool failed) {
        const nb::object pin = std::move(pin_);
        if (!failed && pin.is_valid()) {
            check(object_of(pin).check_held());
        }
    }

    // Copies from shared memory straight into the blocks of a cache, without the GIL.
    void scatter(const PagedPlanes& planes, nb::handle given, std::size_t skip_tokens) const {
        const nb::object held = pin();
        const StoreObject& shown = object_of(held);
        const auto bytes = shown.bytes();
        const std::vector<std::int64_t> blocks = planes.parse_blocks(given, bytes.size());
        {
            const WithoutGil without_gil;
            planes.scatter(blocks, bytes.data(), skip_tokens);
        }
        check(shown.check_held());
    }

    [[nodiscard]] nb::object meta() const { return meta_of(object()); }
    [[nodiscard]] std::size_t nbytes() const { return object().bytes().size(); }
    [[nodiscard]] std::uint64_t offset() const {
        check(object().check_held());
        return object().offset();
    }
    [[nodiscard]] nb::tuple ref() const {
        const StoreRef ref = object().ref();
        return nb::make_tuple(ref.entry, ref.incarnation);
    }

private:
    [[nodiscard]] const nb::object& pin() const {
        if (!pin_.is_valid()) {
            raise_error(ErrorCode::Closed, "this view is over: its object was released");
        }
        return pin_;
    }
    [[nodiscard]] const StoreObject& object() const { return object_of(pin()); }

    nb::object pin_;
    Codec codec_;
    bool is_entered_ = false;
};

}  // namespace

nb::object make_store_view(Codec codec, StoreObject object) {
    return make_object<StoreViewBlock>(std::move(object), codec);
}

nb::object copy_of(const StoreObject& object, Codec codec) {
    const auto bytes = object.bytes();
    if (object.format() == Format::Tensor) {
        return array_of(read_tensor_head(object.meta(), bytes), nb::none());
    }
    return copy_of({bytes, object.format()}, codec);
}

// Always a copy: metadata is small, and needs no pin then.
nb::object meta_of(const StoreObject& object) {
    std::size_t head = 0;
    if (object.format() == Format::Tensor) {
        head = read_tensor_head(object.meta(), object.bytes()).bytes;
    }
    const auto meta = object.meta().subspan(head);
    return meta.empty() ? nb::none() : decode(meta.data(), meta.size(), nb::none(), Codec::Typed);
}

void check_object(Format format, std::span<const std::byte> bytes, std::span<const std::byte> meta,
                  Codec codec) {
    if (format == Format::Tensor) {
        (void)array_of(read_tensor_head(meta, bytes), nb::handle(Py_Ellipsis));  // only a check
    } else if (format != Format::Bytes) {
        check_message(bytes, codec);
    }
}

void bind_store_view(nb::module_& module) {
    bind_exporter<StoreObject>(module, "_StorePin");
    bind_block<StoreViewBlock>(
        module, "StoreView",
        "An object of a store, pinned and read where it lies; made by ``get()``.\n"
        "\n"
        "Can be entered once. Its pin is gone when the block has ended, or ``release()`` was "
        "called, and\n"
        "the last array that was made of it is gone.")
        .def_prop_ro("meta", &StoreViewBlock::meta,
                     "What was stored beside the object, or None; a copy. Closed after release.")
        .def_prop_ro("nbytes", &StoreViewBlock::nbytes,
                     "Bytes of the object, without key and metadata. Closed after release.")
        .def_prop_ro("ref", &StoreViewBlock::ref,
                     "Names this object and no other, also for other processes; see "
                     "``Store.get_ref``.")
        .def_prop_ro("offset", &StoreViewBlock::offset,
                     "Where the object's bytes begin in the segment's file, "
                     "``/dev/shm/penstock.NAME``.\n"
                     "\n"
                     "Another process may open or map that file, and read ``nbytes`` from there on "
                     "while this view is\n"
                     "held, and no longer: then it may be another object's memory. It must not be "
                     "written. Closed\n"
                     "after release.")
        .def(
            "release", [](StoreViewBlock& block) { block.exit(/*failed=*/false); },
            "Let go, where there is no block to end.")
        .def("_scatter", &StoreViewBlock::scatter, nb::arg("planes"), nb::arg("blocks"),
             nb::arg("skip_tokens"));
}

}  // namespace penstock::py
