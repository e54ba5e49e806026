// Timeouts, signals and the end of the interpreter, for every call that waits without the GIL. A
// thread is "left behind" if the interpreter ends while it is in such a call: touching Python then
// would crash the process, so it parks until the process ends.
#include "wait.hpp"

#include <pthread.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <thread>
#include <utility>
#include <vector>

#include "arguments.hpp"
#include "codec/array_pool.hpp"
#include "codec_refusal.hpp"
#include "errors.hpp"
#include "segment/words/atomics.hpp"
#include "store_view.hpp"

namespace penstock::py {
namespace {

std::atomic<unsigned long> main_thread{0};
std::atomic<bool> interpreter_ends{false};
// Cancel of run_cancellable(), while this thread is in it.
thread_local const Cancel* cancel_of_thread = nullptr;
// Threads that must not enter Python any more, although the interpreter has not ended yet. Never
// freed: a thread that reads it may not hold the GIL.
std::atomic<const std::vector<unsigned long>*> left_behind{nullptr};
// Threads that have decided to retake the GIL and do not have it yet.
std::atomic<int> coming_back{0};
// Threads inside the library without the GIL.
std::atomic<int> inside{0};
// How long the end of the process waits for those threads: far longer than any slice or copy takes.
constexpr auto kPatience = std::chrono::seconds(5);

// All current waits. Needs the GIL.
std::vector<const ListedWait*> listed;

bool on_main_thread() noexcept {
    return PyThread_get_thread_ident() == detail::load_relaxed(main_thread);
}

// In a forked child the forking thread is the only one, and the main one.
void after_fork_in_child() noexcept {
    detail::store_relaxed(main_thread, PyThread_get_thread_ident());
    detail::store_relaxed(coming_back, 0);
    detail::store_relaxed(inside, 0);
    listed.clear();
}

// Runs `call()`; its waits on this thread end within 80 ms after `cancel` is cancelled. So a task
// can leave every waiting call, and none of them needs an argument for it.
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

// Afterwards each of these threads, or every one but the main thread, is parked, or holds the GIL
// like any Python thread and parks when it would retake it.
void end_waits(nb::handle threads) {
    if (threads.is_none()) {
        interpreter_ends.store(true);
    } else {
        auto* const idents = new std::vector<unsigned long>;
        for (const nb::handle ident : threads) {
            idents->push_back(nb::cast<unsigned long>(ident));
        }
        left_behind.store(idents);
    }
    ask_all_waits();
    PyThreadState* const state = PyEval_SaveThread();
    for (int count = coming_back.load(); count != 0; count = coming_back.load()) {
        coming_back.wait(count);
    }
    PyEval_RestoreThread(state);
}

// Threads in waits that no other process can end.
nb::set waits_in_vain() {
    nb::set threads;
    for (const ListedWait* const wait : listed) {
        if (wait->is_in_vain()) {
            threads.add(nb::int_(wait->thread()));
        }
    }
    return threads;
}

// Ends their streams: they get what is left, then Closed.
void end_awaited_streams() {
    for (const ListedWait* const wait : listed) {
        if (wait->is_in_vain()) {
            detail::end_streams(wait->subject()->instance);
        }
    }
}

// A thread for the end of the process, when the interpreter can start none any more.
std::thread helper;

void start_thread(nb::object call) {
    helper = std::thread([function = call.release().ptr()] {
        const PyGILState_STATE state = PyGILState_Ensure();
        PyObject* const result = PyObject_CallNoArgs(function);
        if (result == nullptr) {
            PyErr_WriteUnraisable(function);
        }
        Py_XDECREF(result);
        Py_DECREF(function);
        PyGILState_Release(state);
    });
}

void join_thread() {
    if (helper.joinable()) {
        PyThreadState* const state = PyEval_SaveThread();
        helper.join();
        PyEval_RestoreThread(state);
    }
}

bool one_stays_inside = false;

bool depart() noexcept {
    if (!cut_off_open_rooms()) {
        return false;
    }
    detail::depart_all();
    return true;
}

// Makes every participant of this process leave, whatever still refers to it. Does nothing if a
// thread stays inside a call, or may write into memory that would then be reused: the kernel
// releases the locks at the end of the process, and janitors do the rest. With the GIL held no
// thread can enter meanwhile.
bool leave_all() {
    const auto end = Clock::now() + kPatience;
    while (inside.load() != 0) {
        if (Clock::now() >= end) {
            one_stays_inside = true;
            return false;
        }
        PyThreadState* const state = PyEval_SaveThread();
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
        PyEval_RestoreThread(state);
    }
    return depart();
}

// The same after the interpreter's end, for handles made since: by daemon threads, and by `atexit`
// functions that run after this module's.
void leave_at_last() noexcept {
    interpreter_ends.store(true);
    ask_all_waits();
    const auto end = Clock::now() + kPatience;
    while (inside.load() != 0) {
        if (one_stays_inside || Clock::now() >= end) {
            return;
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    depart();
}

}  // namespace

Deadline parse_timeout(nb::handle timeout) {
    if (timeout.is_none()) {
        return Deadline::never();
    }
    const double seconds = PyFloat_AsDouble(timeout.ptr());
    if (seconds == -1.0 && PyErr_Occurred() != nullptr) {
        PyErr_Clear();
        raise_wrong_type("timeout", "seconds as an int or a float, or None for ever", timeout);
    }
    if (std::isnan(seconds) || seconds < 0) {
        raise_error(ErrorCode::InvalidArgument,
                    "timeout is " + shown(timeout) +
                        ": give seconds from 0 (try once) up, or None to wait for ever");
    }
    return Deadline::after(std::chrono::duration<double>(seconds));
}

bool WithoutGil::is_left_behind() noexcept {
    if (on_main_thread()) {
        return false;
    }
    if (interpreter_ends.load()) {
        return true;
    }
    const auto* const threads = left_behind.load();
    return threads != nullptr &&
           std::ranges::find(*threads, PyThread_get_thread_ident()) != threads->end();
}

void WithoutGil::release() noexcept {
    inside.fetch_add(1);
    state_ = PyEval_SaveThread();
}

void WithoutGil::reacquire() noexcept {
    if (state_ == nullptr) {
        return;
    }
    // Counted before the flag is read: end_waits() sets the flag and then waits for the count.
    coming_back.fetch_add(1);
    const bool parks = is_left_behind();
    if (!parks) {
        PyEval_RestoreThread(state_);
        state_ = nullptr;
    }
    inside.fetch_sub(1);
    coming_back.fetch_sub(1);
    if (interpreter_ends.load() || left_behind.load() != nullptr) {
        coming_back.notify_all();
    }
    if (parks) {
        park();
    }
}

ListedWait::ListedWait(const WaitSubject* subject)
    : subject_(subject), thread_(PyThread_get_thread_ident()) {
    listed.push_back(this);
}

ListedWait::~ListedWait() {
    std::erase(listed, this);
}

bool ListedWait::is_in_vain() const {
    return subject_ != nullptr && detail::is_awaited_in_vain(subject_->instance, subject_->what);
}

Waiting::Waiting(Deadline deadline, const Cancel* cancel, const WaitSubject* subject)
    : listed_(subject), wait_(deadline) {
    wait_.cancel = cancel != nullptr ? cancel : cancel_of_thread;
    wait_.interrupted = &Waiting::interrupted;
    wait_.context = this;
    codec::array_pool().trim();  // a process without work gives back memory, too
}

void Waiting::finish(const Status& outcome) {
    reacquire();
    if (raised_) {
        throw nb::python_error();
    }
    check(outcome);
}

bool Waiting::interrupted(void* self) noexcept {
    codec::array_pool().trim();
    if (!on_main_thread()) {
        return WithoutGil::is_left_behind();  // signal handlers run on the main thread only
    }
    auto* const waiting = static_cast<Waiting*>(self);
    if (waiting->raised_) {
        return true;  // one binding call may be several waits of the library
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
    if (Py_AtExit(&leave_at_last) != 0) {
        std::atexit(&leave_at_last);  // there are 32 places for all modules
    }

    nb::class_<Cancel>(module, "Cancel", "Ends a wait from another thread, within 80 ms.")
        .def(nb::init<>())
        .def("cancel", &Cancel::cancel)
        .def_prop_ro("cancelled", &Cancel::is_cancelled);
    module.def(
        "is_made", [](nb::handle one) { return nb::inst_check(one) && nb::inst_ready(one); },
        nb::arg("one"), "Whether it is an object of this module whose ``__init__`` has run.");
    module.def("run_cancellable", &run_cancellable, nb::arg("cancel"), nb::arg("call"),
               "``call()``; its waits end within 80 ms after ``cancel`` is cancelled.");

    module.def(
        "check_timeout", [](nb::handle timeout) { parse_timeout(timeout); },
        nb::arg("timeout").none());
    module.def("end_waits", &end_waits, nb::arg("threads").none(),
               "At the end of the process: keeps these threads (None: all but the main one) from "
               "returning to Python from waits without the GIL.");
    module.def("waits_in_vain", &waits_in_vain,
               "The threads in waits that no other process can end.");
    module.def("end_awaited_streams", &end_awaited_streams,
               "Ends the streams of those threads: they get what is left, then Closed.");
    module.def("start_thread", &start_thread, nb::arg("call"),
               "Runs it in a thread, also when the interpreter can start none any more.");
    module.def("join_thread", &join_thread,
               "Waits for the thread of start_thread(), if there is one.");
    module.def("leave_all", &leave_all,
               "Makes every participant of this process leave, even if objects still refer to it. "
               "False: a thread stayed inside a call, or can still write into a reservation, and "
               "the kernel releases the locks at the end of the process.");
}

}  // namespace penstock::py
