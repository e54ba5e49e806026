// penstock._core: the library for the Python package, which is its only user. One file for each
// concept; this one combines them.
#include <nanobind/nanobind.h>

#include "array_pool.hpp"
#include "codec.hpp"
#include "errors.hpp"
#include "json_columns.hpp"
#include "json_numbers.hpp"
#include "number_lists.hpp"
#include "paged_planes.hpp"
#include "penstock/version.hpp"
#include "queue.hpp"
#include "reader.hpp"
#include "second_tier.hpp"
#include "state.hpp"
#include "statistics.hpp"
#include "store.hpp"
#include "store_connector.hpp"
#include "text.hpp"
#include "trajectories.hpp"
#include "wait.hpp"
#include "writer.hpp"

// nanobind's own entry under another name: it must not run in a second interpreter, whose end would
// free what the first one still uses.
#define PyInit__core penstock_init_core
NB_MODULE(_core, module) {
    using namespace penstock::py;  // NOLINT(google-build-using-namespace)

    // Handles in module globals are closed by the kernel when the process ends.
    nb::set_leak_warnings(false);
    module.attr("__version__") = PENSTOCK_VERSION;
    bind_errors(module);
    bind_text(module);
    bind_wait(module);
    bind_codec(module);
    bind_array_pool(module);
    bind_json_columns(module);
    bind_json_numbers(module);
    bind_number_lists(module);
    bind_statistics(module);
    bind_inspect(module);
    bind_loan(module);
    bind_writer(module);
    bind_view(module);
    bind_reader(module);
    bind_queue(module);
    bind_paged_planes(module);
    bind_store(module);
    bind_second_tier(module);
    bind_store_connector(module);
    bind_trajectories(module);
}
#undef PyInit__core

// The name that Python looks up.
extern "C" NB_EXPORT PyObject* PyInit__core() {  // NOLINT(bugprone-reserved-identifier)
    if (PyInterpreterState_Get() != PyInterpreterState_Main()) {
        PyErr_SetString(PyExc_ImportError,
                        "penstock can be imported in the main interpreter of a process only: its "
                        "threads and handles belong to the process; use a process of its own "
                        "(multiprocessing) instead of this interpreter");
        return nullptr;
    }
    return penstock_init_core();
}
