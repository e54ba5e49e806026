#include "received.hpp"

#include "arguments.hpp"
#include "codec_memory.hpp"

namespace penstock::py {

nb::object memory_view_of(const nb::object& exporter) {
    nb::object view = nb::steal(PyMemoryView_FromObject(exporter.ptr()));
    if (!view.is_valid()) {
        throw nb::python_error();
    }
    return view;
}

nb::object copy_of(const Content& content, Codec codec) {
    const auto bytes = content.bytes;
    if (content.format != Format::Bytes) {
        return decode(bytes.data(), bytes.size(), nb::none(), codec);
    }
    std::byte* data = nullptr;
    nb::object copy = new_bytes(bytes.size(), data);
    copy_bytes(data, bytes.data(), bytes.size());
    return copy;
}

nb::object view_of(const Content& content, const nb::object& exporter, Codec codec) {
    if (content.format == Format::Bytes) {
        return memory_view_of(exporter);
    }
    return decode(content.bytes.data(), content.bytes.size(), exporter, codec);
}

}  // namespace penstock::py
