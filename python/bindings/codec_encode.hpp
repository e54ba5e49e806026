// From a Python value to the structure of a message.
#pragma once

#include <nanobind/nanobind.h>

#include "codec_refusal.hpp"
#include "codec_scratch.hpp"
#include "penstock/codec.hpp"

namespace penstock::py {

// Walks one value, depth first. Types are distinguished by identity, the commonest first. Throws
// Refusal for values that the typed codec does not support, nb::python_error for the rest.
class Encoder {
public:
    explicit Encoder(Scratch& scratch) : scratch_(scratch), out_(scratch.message.structure()) {}

    void value(nb::handle value);

private:
    class Level;

    void integer(nb::handle value);
    void text(nb::handle value);
    void big_integer(nb::handle value);
    void surrogate_text(nb::handle value);
    void list(nb::handle value);
    void dict(nb::handle value);
    void tuple(nb::handle value);
    void key(nb::handle key, nb::handle dict);
    bool is_key(nb::handle key, unsigned depth) const;
    void dict_item(nb::handle key, nb::handle item, nb::handle dict);
    void item(nb::handle item, nb::handle container, std::size_t index);
    void byte_array(nb::handle value);
    void memory_view(nb::handle value);
    void out_of_band(const Py_buffer& buffer, std::int64_t kind);
    void other(nb::handle value);
    void rare(nb::handle value);
    void dataclass(nb::handle value, const struct Dataclass& entry);

    Scratch& scratch_;
    codec::Writer& out_;
    unsigned depth_ = 0;
};

}  // namespace penstock::py
