// The registry is accessed with the GIL held. Its entries are never removed.
#include "codec_dataclass.hpp"

#include <deque>
#include <functional>
#include <map>
#include <unordered_map>

#include "arguments.hpp"
#include "codec_refusal.hpp"
#include "errors.hpp"

namespace penstock::py {
namespace {

struct Registry {
    std::deque<Dataclass> classes;
    std::unordered_map<PyTypeObject*, const Dataclass*> by_type;
    std::map<std::string, const Dataclass*, std::less<>> by_name;
};

Registry& registry() {
    static auto* const only = new Registry;  // outlives the interpreter, with its references
    return *only;
}

std::string text_of(nb::handle object) {
    return parse_text(nb::str(object), "the name of a dataclass");
}

std::string qualified_name(nb::handle type) {
    const nb::object module = type.attr("__module__");
    const nb::object name = type.attr("__qualname__");
    return text_of(module) + "." + text_of(name);
}

void add_fields(Dataclass& entry) {
    const nb::object fields = nb::module_::import_("dataclasses").attr("fields")(entry.type);
    for (const nb::handle field : fields) {
        PyObject* name = nb::object(field.attr("name")).release().ptr();
        PyUnicode_InternInPlace(&name);
        entry.fields.push_back(nb::steal(name));
        entry.wire_fields.push_back(text_of(name));
    }
}

}  // namespace

std::size_t Dataclass::index_of(std::string_view field) const noexcept {
    for (std::size_t i = 0; i < wire_fields.size(); ++i) {
        if (wire_fields[i] == field) {
            return i;
        }
    }
    return kUnknown;
}

// object.__new__ as called from Python: the C function refuses classes with another layout.
nb::object Dataclass::blank() const {
    static PyObject* make = nullptr;  // guarded by the interpreter's lock
    if (make == nullptr) {
        make = PyObject_GetAttrString(reinterpret_cast<PyObject*>(&PyBaseObject_Type), "__new__");
    }
    nb::object object = nb::steal(PyObject_CallOneArg(make, type.ptr()));
    if (!object.is_valid()) {
        nb::raise_python_error();
    }
    return object;
}

void register_dataclass(const nb::object& type, nb::handle given_name) {
    const std::string name = given_name.is_none() ? "" : parse_text(given_name, "name");
    const nb::object is_dataclass = nb::module_::import_("dataclasses").attr("is_dataclass");
    if (!PyType_Check(type.ptr()) || !nb::cast<bool>(is_dataclass(type))) {
        raise_error(ErrorCode::InvalidArgument,
                    "register_dataclass takes a class made with @dataclass, not " + shown(type));
    }
    Dataclass entry;
    entry.type = type;
    entry.name = name.empty() ? qualified_name(type) : name;
    add_fields(entry);
    (void)entry.blank();  // raises TypeError now and not at the first message
    Registry& all = registry();
    all.classes.push_back(std::move(entry));
    const Dataclass& added = all.classes.back();
    all.by_type[reinterpret_cast<PyTypeObject*>(type.ptr())] = &added;
    all.by_name[added.name] = &added;
}

const Dataclass* dataclass_of(nb::handle value) noexcept {
    const Registry& all = registry();
    const auto found = all.by_type.find(Py_TYPE(value.ptr()));
    return found == all.by_type.end() ? nullptr : found->second;
}

const Dataclass* dataclass_named(std::string_view name) noexcept {
    const Registry& all = registry();
    const auto found = all.by_name.find(name);
    return found == all.by_name.end() ? nullptr : found->second;
}

}  // namespace penstock::py
