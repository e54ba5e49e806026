// The reason why the typed codec refuses a value, and the path to it within the value.
#pragma once

#include <nanobind/nanobind.h>

#include <cstddef>
#include <string>
#include <utility>
#include <vector>

namespace penstock::py {

namespace nb = nanobind;

// Thrown at the offending part; each container that it passes through adds its step to the path.
class Refusal {
public:
    // `what` follows the path: " is a set, which …".
    explicit Refusal(std::string what) : what_(std::move(what)) {}
    // Nested too deep, at container `deepest`: if that occurs again on the way out, it contains
    // itself.
    Refusal(std::string what, nb::handle deepest) : what_(std::move(what)), deepest_(deepest) {}
    // Code of the value's own type raised `cause`.
    Refusal(std::string what, nb::object cause)
        : what_(std::move(what)), cause_(std::move(cause)) {}

    void came_through(nb::handle container, std::string step);

    // "value['a'][3] is a set, which …"
    [[nodiscard]] std::string sentence() const;
    // The exception behind the refusal, if there is one.
    [[nodiscard]] const nb::object& cause() const noexcept { return cause_; }

private:
    std::string what_;
    std::vector<std::string> steps_;  // innermost first
    nb::handle deepest_;
    nb::object cause_;
    std::size_t cycle_ = 0;  // steps inside the outermost container that contains itself
};

// "[3]", "['a']"; never fails.
std::string index_step(std::size_t index);
std::string key_step(nb::handle key);
// str() and repr() of a value, cut if long; never fail.
std::string said(nb::handle value);
std::string shown(nb::handle value);
// "set", "enum.Color".
std::string type_of(nb::handle value);

}  // namespace penstock::py
