// Timeouts, signals and the end of the interpreter, for every call that waits without the GIL.
// A thread is "left behind" when the interpreter ends while it is still in such a call: touching
// Python then would kill the process, so it parks for the moment that is left of it.
#include "wait.hpp"

#include <pthread.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <utility>

#include "errors.hpp"

namespace penstock::py {
namespace {

std::atomic<unsigned long> main_thread{0};
std::atomic<bool> interpreter_ends{false};
// Of run_cancellable(), while this thread is in it.
thread_local const Cancel* cancel_of_thread = nullptr;
// Threads between the decision to take the GIL back and having it.
std::atomic<int> coming_back{0};

bool on_main_thread() noexcept {
    return PyThread_get_thread_ident() == main_thread.load(std::memory_order_relaxed);
}

// In a forked child the forking thread is the only one, and the main one.
void after_fork_in_child() noexcept {
    main_thread.store(PyThread_get_thread_ident(), std::memory_order_relaxed);
    coming_back.store(0, std::memory_order_relaxed);
}

// `call()`, whose waits on this thread end within 80 ms after `cancel` is cancelled. So every call
// that waits can be left by a task, and none of them needs an argument for it.
nb::object run_cancellable(const Cancel& cancel, const nb::callable& call) {
    struct Scope {
        explicit Scope(const Cancel* cancel) noexcept
            : before(std::exchange(cancel_of_thread, cancel)) {}
        Scope(const Scope&) = delete;
        Scope& operator=(const Scope&) = delete;
        ~Scope() { cancel_of_thread = before; }
        const Cancel* before;
    };
    const Scope scope(&cancel);
    return call();
}

[[noreturn]] void park() noexcept {
    while (true) {
        ::pause();
    }
}

// Called by penstock/_exit.py before the interpreter is taken apart. Afterwards every other thread
// of ours is either parked or holds the GIL like any Python thread.
void end_waits() {
    interpreter_ends.store(true);
    PyThreadState* const state = PyEval_SaveThread();
    for (int threads = coming_back.load(); threads != 0; threads = coming_back.load()) {
        coming_back.wait(threads);
    }
    PyEval_RestoreThread(state);
}

}  // namespace

Deadline parse_timeout(nb::handle timeout) {
    if (timeout.is_none()) {
        return Deadline::never();
    }
    const double seconds = PyFloat_AsDouble(timeout.ptr());
    if (seconds == -1.0 && PyErr_Occurred() != nullptr) {
        throw nb::python_error();
    }
    if (std::isnan(seconds) || seconds < 0) {
        raise_error(ErrorCode::InvalidArgument,
                    "timeout is " + std::string(nb::repr(timeout).c_str()) +
                        ": give seconds from 0 (try once) up, or None to wait for ever");
    }
    if (seconds == 0) {
        return Deadline::now();
    }
    // Longer than a century is for ever, and would overflow the clock's nanoseconds.
    constexpr double century = 100.0 * 365 * 24 * 3600;
    if (seconds > century) {
        return Deadline::never();
    }
    return Deadline::after(std::chrono::duration_cast<std::chrono::nanoseconds>(
        std::chrono::duration<double>(seconds)));
}

bool WithoutGil::is_left_behind() noexcept {
    return interpreter_ends.load() && !on_main_thread();
}

void WithoutGil::reacquire() noexcept {
    if (state_ == nullptr) {
        return;
    }
    // Counted before the flag is read: end_waits() sets the flag and then waits for the count.
    coming_back.fetch_add(1);
    const bool left_behind = is_left_behind();
    if (!left_behind) {
        PyEval_RestoreThread(state_);
        state_ = nullptr;
    }
    coming_back.fetch_sub(1);
    if (interpreter_ends.load()) {
        coming_back.notify_all();
    }
    if (left_behind) {
        park();
    }
}

Waiting::Waiting(Deadline deadline, const Cancel* cancel) noexcept : wait_(deadline) {
    wait_.cancel = cancel != nullptr ? cancel : cancel_of_thread;
    wait_.interrupted = &Waiting::interrupted;
    wait_.context = this;
}

void Waiting::finish(const Status& outcome) {
    reacquire();
    if (raised_) {
        throw nb::python_error();
    }
    check(outcome);
}

bool Waiting::interrupted(void* self) noexcept {
    if (!on_main_thread()) {
        return WithoutGil::is_left_behind();  // signal handlers run on the main thread only
    }
    auto* const waiting = static_cast<Waiting*>(self);
    if (waiting->raised_) {
        return true;  // one call of ours may be several waits of the library's
    }
    waiting->gil_.reacquire();
    waiting->raised_ = PyErr_CheckSignals() != 0;
    waiting->gil_.release();
    return waiting->raised_;
}

void bind_wait(nb::module_& module) {
    main_thread.store(nb::cast<unsigned long>(
        nb::module_::import_("threading").attr("main_thread")().attr("ident")));
    pthread_atfork(nullptr, nullptr, &after_fork_in_child);

    nb::class_<Cancel>(module, "Cancel", "Ends a wait from another thread, within 80 ms.")
        .def(nb::init<>())
        .def("cancel", &Cancel::cancel)
        .def_prop_ro("cancelled", &Cancel::is_cancelled);
    module.def(
        "is_made", [](nb::handle one) { return nb::inst_check(one) && nb::inst_ready(one); },
        nb::arg("one"), "Whether it is an object of this module's, and its ``__init__`` has run.");
    module.def("run_cancellable", &run_cancellable, nb::arg("cancel"), nb::arg("call"),
               "``call()``, whose waits end within 80 ms after ``cancel`` is cancelled.");

    module.def(
        "check_timeout", [](nb::handle timeout) { parse_timeout(timeout); },
        nb::arg("timeout").none());
    module.def(
        "end_waits", &end_waits,
        "The interpreter is about to end: threads that wait without the GIL don't come back.");
}

}  // namespace penstock::py
