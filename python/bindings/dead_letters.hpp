// Dead letters of a queue or of its trajectories, bound to either class alike;
// penstock/dead_letters.py makes its dataclass of them. Needs the GIL.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/vector.h>

#include <cstdint>
#include <optional>
#include <vector>

#include "penstock/queue.hpp"

namespace penstock::py {

namespace nb = nanobind;

nb::list dead_letters_to_list(const Result<std::vector<DeadLetter>>& letters);
nb::bytes dead_letter_to_bytes(const Result<std::vector<std::byte>>& copy);
std::uint64_t moved(const Result<std::uint64_t>& count);

using ChosenLetters = std::optional<std::vector<std::uint64_t>>;  // none: all

// `target(self)`: the library's handle, checked to be usable.
template <typename Bound, typename Target>
void bind_dead_letters(Bound& bound, Target target) {
    using Self = typename Bound::Type;
    bound
        .def(
            "_dead_letters",
            [target](Self& self, std::size_t limit) {
                return dead_letters_to_list(target(self).dead_letters(limit));
            },
            nb::arg("limit"))
        .def(
            "_dead_letter_bytes",
            [target](Self& self, std::uint64_t sequence) {
                return dead_letter_to_bytes(target(self).copy_dead_letter(sequence));
            },
            nb::arg("sequence"))
        .def(
            "_requeue_dead_letters",
            [target](Self& self, const ChosenLetters& chosen) {
                auto& it = target(self);
                return moved(chosen ? it.requeue_dead_letters(*chosen) : it.requeue_dead_letters());
            },
            nb::arg("sequences").none())
        .def(
            "_drop_dead_letters",
            [target](Self& self, const ChosenLetters& chosen) {
                auto& it = target(self);
                return moved(chosen ? it.drop_dead_letters(*chosen) : it.drop_dead_letters());
            },
            nb::arg("sequences").none());
}

}  // namespace penstock::py
