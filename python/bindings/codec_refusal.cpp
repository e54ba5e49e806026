// Composes the message of a refusal. Cold path.
#include "codec_refusal.hpp"

#include <string_view>

#include "os/stack.hpp"
#include "segment/text.hpp"

namespace penstock::py {
namespace {

constexpr std::size_t kLongestKey = 60;
constexpr std::size_t kShownSteps = 12;

std::string utf8(nb::handle text) {
    Py_ssize_t size = 0;
    const char* const data = PyUnicode_AsUTF8AndSize(text.ptr(), &size);
    if (data == nullptr) {
        PyErr_Clear();
        return "?";
    }
    return {data, static_cast<std::size_t>(size)};
}

// The result of PyObject_Str() or PyObject_Repr(), cut with an ellipsis if it is long.
std::string cut(const nb::object& text) {
    constexpr std::size_t kLongest = 200;
    if (!text.is_valid()) {
        PyErr_Clear();
        return "?";
    }
    const std::string whole = utf8(text);
    return std::string(detail::cut(whole, kLongest)) + (whole.size() > kLongest ? "…" : "");
}

std::string in_brackets(std::string_view text) {
    return std::string("[").append(text).append("]");
}

}  // namespace

void Refusal::came_through(nb::handle container, std::string step) {
    steps_.push_back(std::move(step));
    if (deepest_.is_valid() && container.is(deepest_)) {
        cycle_ = steps_.size();
    }
}

std::string Refusal::sentence() const {
    std::string path = "value";
    std::size_t shown = 0;
    for (std::size_t i = steps_.size(); i > cycle_; --i) {
        if (++shown > kShownSteps) {
            path += "…";
            break;
        }
        path += steps_[i - 1];
    }
    return path + (cycle_ > 0 ? std::string(" contains itself") : what_);
}

std::string index_step(std::size_t index) {
    return in_brackets(std::to_string(index));
}

std::string key_step(nb::handle key) {
    // repr() of a tuple recurses into its items.
    constexpr std::size_t reprs_stack = std::size_t{256} << 10U;
    if (PyTuple_Check(key.ptr()) && os::stack_left() < reprs_stack) {
        return in_brackets(type_of(key));
    }
    nb::object repr = nb::steal(PyObject_Repr(key.ptr()));
    if (!repr.is_valid()) {
        PyErr_Clear();
        return in_brackets(type_of(key));
    }
    std::string text = utf8(repr);
    if (text.size() > kLongestKey) {
        text = type_of(key) + " of " + std::to_string(text.size()) + " characters";
    }
    return in_brackets(text);
}

std::string said(nb::handle value) {
    return cut(nb::steal(PyObject_Str(value.ptr())));
}

std::string shown(nb::handle value) {
    return cut(nb::steal(PyObject_Repr(value.ptr())));
}

std::string type_of(nb::handle value) {
    nb::object module = nb::steal(PyObject_GetAttrString(value.type().ptr(), "__module__"));
    nb::object name = nb::steal(PyObject_GetAttrString(value.type().ptr(), "__qualname__"));
    if (!module.is_valid() || !name.is_valid() || !PyUnicode_Check(module.ptr())) {
        PyErr_Clear();
        return Py_TYPE(value.ptr())->tp_name;
    }
    const std::string where = utf8(module);
    return where == "builtins" ? utf8(name) : where + "." + utf8(name);
}

}  // namespace penstock::py
