// Waiting without the GIL: Python's timeouts, Ctrl-C, cancellation from another thread, and threads
// that still wait when the interpreter ends.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "penstock/error.hpp"
#include "penstock/wait.hpp"
#include "segment/life/attachment.hpp"

namespace penstock::py {

namespace nb = nanobind;

// None: for ever. 0: try once. Otherwise seconds as an int or a float; InvalidArgument for negative
// numbers and NaN, TypeError for other types.
Deadline parse_timeout(nb::handle timeout);

// Releases the GIL during its life. Unlike nb::gil_scoped_release it is safe in threads that the
// interpreter leaves behind when it ends: those never return from reacquire(). Counted, so that the
// end of the process knows when no thread is inside the library any more.
class WithoutGil {
public:
    WithoutGil() noexcept { release(); }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;
    ~WithoutGil() { reacquire(); }

    // Retakes the GIL before the end of the scope. Idempotent.
    void reacquire() noexcept;
    void release() noexcept;
    // True if reacquire() would never return: the caller must first release what others may need.
    [[nodiscard]] static bool is_left_behind() noexcept;

private:
    PyThreadState* state_ = nullptr;
};

// What is waited for, in which segment: the end of the process checks whether it may still come.
struct WaitSubject {
    std::string instance;
    detail::Awaited what = detail::Awaited::Message;
};

// Lists a wait for other threads, during its life. Made and destroyed with the GIL.
class ListedWait {
public:
    explicit ListedWait(const WaitSubject* subject);
    ListedWait(const ListedWait&) = delete;
    ListedWait& operator=(const ListedWait&) = delete;
    ~ListedWait();

    [[nodiscard]] unsigned long thread() const noexcept { return thread_; }
    [[nodiscard]] bool is_in_vain() const;
    [[nodiscard]] const WaitSubject* subject() const noexcept { return subject_; }

private:
    const WaitSubject* subject_;  // null: not of a segment, and ends by itself
    unsigned long thread_ = 0;
};

// One wait without the GIL: pass wait() to the library. After every signal, and now and then, it
// takes the GIL briefly to let Python's signal handlers run on the main thread.
class Waiting {
public:
    // `subject` must outlive this object.
    explicit Waiting(Deadline deadline, const Cancel* cancel = nullptr,
                     const WaitSubject* subject = nullptr);

    [[nodiscard]] const Wait& wait() const noexcept { return wait_; }
    // A signal handler raised (mostly KeyboardInterrupt): the Python error is set.
    [[nodiscard]] bool has_raised() const noexcept { return raised_; }
    void reacquire() noexcept { gil_.reacquire(); }
    // Calls Python in the middle of a wait. Not possible once the thread is left behind.
    template <typename Call>
    auto with_gil(Call&& call) {
        gil_.reacquire();
        auto outcome = call();
        gil_.release();
        return outcome;
    }
    // Called with the GIL back: raises a signal handler's exception, or else the failure.
    void finish(const Status& outcome);

private:
    static bool interrupted(void* self) noexcept;

    ListedWait listed_;  // listed before the GIL is released, and until it is back
    WithoutGil gil_;
    Wait wait_;
    bool raised_ = false;
};

// Runs an attach() of the library, which may wait for a name to appear.
template <typename Attach>
auto attach_waiting(Deadline deadline, Attach&& attach) {
    Waiting waiting(deadline);
    const auto throw_if_interrupted = [&waiting] {
        waiting.reacquire();
        if (waiting.has_raised()) {
            throw nb::python_error();
        }
    };
    try {
        auto attached = attach(waiting.wait());
        throw_if_interrupted();
        return attached;
    } catch (const Error&) {
        throw_if_interrupted();
        throw;
    }
}

// Runs a create() of the library with these options. Taking all memory at once may take a minute,
// and a server may hang (`waits`); signals and cancelled tasks end that. A creation without either
// also succeeds while waits are being ended at exit.
template <typename Options, typename Create>
auto create_waiting(Options& options, Create&& create, bool waits = false) {
    const MemoryOptions& memory = options.memory;
    if (!waits && !memory.populate && !memory.lock_memory && !memory.huge_pages) {
        const WithoutGil without_gil;
        return create();
    }
    return attach_waiting(Deadline::never(), [&](const Wait& wait) {
        options.memory.wait = wait;
        return create();
    });
}

// Binds Cancel, and the functions for penstock/_exit.py at the end of the process.
void bind_wait(nb::module_& module);

}  // namespace penstock::py
