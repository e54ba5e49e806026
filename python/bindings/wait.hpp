// Waiting without the GIL: timeouts as Python gives them, Ctrl-C, cancellation from another
// thread, and threads that are still waiting when the interpreter ends.
#pragma once

#include <nanobind/nanobind.h>

#include <string>

#include "penstock/error.hpp"
#include "penstock/wait.hpp"
#include "segment/life/attachment.hpp"

namespace penstock::py {

namespace nb = nanobind;

// None: for ever. 0: try once. Seconds as an int or a float otherwise; InvalidArgument for
// negative numbers and NaN, TypeError for what is no number.
Deadline parse_timeout(nb::handle timeout);

// Lets the GIL go for as long as it exists. Unlike nb::gil_scoped_release it is safe in threads
// that the interpreter leaves behind when it ends: those never come back from reacquire(). Counted,
// so that the end of the process knows when no thread is inside the library any more.
class WithoutGil {
public:
    WithoutGil() noexcept { release(); }
    WithoutGil(const WithoutGil&) = delete;
    WithoutGil& operator=(const WithoutGil&) = delete;
    ~WithoutGil() { reacquire(); }

    // Takes the GIL back before the end of the scope. Does nothing the second time.
    void reacquire() noexcept;
    void release() noexcept;
    // True where reacquire() would never return: give back what others may need first.
    [[nodiscard]] static bool is_left_behind() noexcept;

private:
    PyThreadState* state_ = nullptr;
};

// What is waited for, of which segment: the end of the process asks whether anything may yet come.
struct WaitSubject {
    std::string instance;
    detail::Awaited what = detail::Awaited::Message;
};

// A wait that other threads can know of, for as long as it exists. Made and destroyed with the GIL.
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

// One wait without the GIL: hand wait() to the library. Now and then, and after every signal, it
// takes the GIL for a moment to let Python's signal handlers run on the main thread.
class Waiting {
public:
    // `subject` outlives it.
    explicit Waiting(Deadline deadline, const Cancel* cancel = nullptr,
                     const WaitSubject* subject = nullptr);

    [[nodiscard]] const Wait& wait() const noexcept { return wait_; }
    // A signal handler raised (KeyboardInterrupt, mostly): the Python error is set.
    [[nodiscard]] bool has_raised() const noexcept { return raised_; }
    void reacquire() noexcept { gil_.reacquire(); }
    // For what a wait has to ask of Python before it can go on. Not where the thread is left
    // behind.
    template <typename Call>
    auto with_gil(Call&& call) {
        gil_.reacquire();
        auto outcome = call();
        gil_.release();
        return outcome;
    }
    // The GIL is back; raises what a signal handler raised, or else the failure.
    void finish(const Status& outcome);

private:
    static bool interrupted(void* self) noexcept;

    ListedWait listed_;  // before the GIL goes, and until it is back
    WithoutGil gil_;
    Wait wait_;
    bool raised_ = false;
};

// An attach() of the library, which may wait for a name to appear: what `attach(const Wait&)`
// gives.
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

// A create() of the library with these options. Taking all memory at once may take a minute, which
// signals end, and tasks that are cancelled. What takes none creates also where waits have ended
// because the process does.
template <typename Options, typename Create>
auto create_waiting(Options& options, Create&& create) {
    const MemoryOptions& memory = options.memory;
    if (!memory.populate && !memory.lock_memory && !memory.huge_pages) {
        const WithoutGil without_gil;
        return create();
    }
    return attach_waiting(Deadline::never(), [&](const Wait& wait) {
        options.memory.wait = wait;
        return create();
    });
}

// Cancel for Python, and what penstock/_exit.py does when the process ends.
void bind_wait(nb::module_& module);

}  // namespace penstock::py
