// Looks up the exception classes in penstock.errors when the first error is raised, so that the
// extension module can be imported alone, and keeps them for the interpreter's life.
#include "errors.hpp"

#include <map>
#include <optional>
#include <string_view>
#include <utility>

#include "segment/text.hpp"
#include "text.hpp"

namespace penstock::py {

nb::handle error_class(const char* name) {
    // Never freed: an exception may be raised while the interpreter unloads its modules.
    static auto* const classes = new std::map<std::string, nb::handle, std::less<>>();
    if (const auto known = classes->find(std::string_view(name)); known != classes->end()) {
        return known->second;
    }
    nb::object found = nb::module_::import_("penstock.errors").attr(name);
    return classes->emplace(name, found.release()).first->second;
}

namespace {

template <typename T>
void set_if_known(const nb::object& error, const char* name, const std::optional<T>& value) {
    if (value) {
        error.attr(name) = *value;
    }
}

// Sets Exception(sentence) as the current error, with its rank, the death that it is about, and its
// cause if there are any.
void set_error(const char* name, std::string_view sentence, int rank = -1,
               ClosedBy closed_by = ClosedBy::Self, const Death& death = {},
               nb::object cause = {}) {
    // Sentences may quote text from other processes, and are shown on terminals.
    const nb::object error = error_class(name)(to_text(detail::printable(sentence)));
    if (rank >= 0) {
        error.attr("rank") = rank;
    }
    if (std::string_view(name) == "Closed" && closed_by == ClosedBy::Self) {
        error.attr("by") = "self";
    }
    set_if_known(error, "pid", death.pid);
    set_if_known(error, "exit_code", death.exit_code);
    set_if_known(error, "signal", death.signal);
    if (cause.is_valid()) {
        PyException_SetCause(error.ptr(), cause.release().ptr());
    }
    PyErr_SetObject(error_class(name).ptr(), error.ptr());
}

// System is the one code without a class of its own: it maps to the base class.
std::string class_name(ErrorCode code) {
    return code == ErrorCode::System ? "Error" : std::string(to_string(code));
}

}  // namespace

void raise_error(const char* name, const std::string& sentence, nb::object cause) {
    set_error(name, sentence, -1, ClosedBy::Self, {}, std::move(cause));
    throw nb::python_error();
}

void raise_error(ErrorCode code, const std::string& sentence) {
    raise_error(class_name(code).c_str(), sentence);
}

void raise_error(const Status& failure) {
    set_error(class_name(failure.code()).c_str(), failure.message(), failure.peer(),
              failure.closed_by(), failure.death());
    throw nb::python_error();
}

void raise_not_by_hand(nb::handle type) {
    const std::string name = nb::str(type.attr("__name__")).c_str();
    const bool is_writer = name == "BroadcastWriter";
    const bool is_reader = name == "BroadcastReader";
    const std::string maker = is_writer || is_reader ? "Broadcast" : name;
    std::string how = is_reader ? "" : maker + ".create()";
    if (!is_writer) {
        how.append(how.empty() ? "" : " or ").append(maker).append(".attach()");
    }
    raise_error("InvalidType", name + " is not made by hand: use " + how);
}

void check(const Status& status) {
    if (!status.is_ok()) {
        raise_error(status);
    }
}

void bind_errors(nb::module_& /*module*/) {
    nb::register_exception_translator([](const std::exception_ptr& pointer, void* /*unused*/) {
        try {
            std::rethrow_exception(pointer);
        } catch (const Error& error) {
            set_error(class_name(error.code()).c_str(), error.what(), error.peer(),
                      error.closed_by(), error.death());
        }
    });
}

}  // namespace penstock::py
