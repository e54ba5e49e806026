// penstock._core.Loan: `with writer.loan(nbytes) as buf`, room in shared memory that Python fills.
// An array made of the buffer that outlives the block is cut off from the shared memory.
#include <memory>
#include <optional>
#include <utility>

#include "arguments.hpp"
#include "context.hpp"
#include "life.hpp"
#include "writer.hpp"

namespace penstock::py {
namespace {

// The memory of one loan, as an object with the buffer protocol. Everything made of the loan keeps
// it alive, by an export, or as numpy.ndarray(buffer=...) by a reference alone.
struct LoanMemory {
    std::shared_ptr<LoanWindow> window;
    FileRange range;

    static int get_buffer(PyObject* self, Py_buffer* view, int flags) noexcept {
        auto* const memory = nb::inst_ptr<LoanMemory>(self);
        std::byte* const bytes = memory->window->at(memory->range.offset);
        const auto size = static_cast<Py_ssize_t>(memory->range.nbytes);
        return PyBuffer_FillInfo(view, self, bytes, size, /*readonly=*/0, flags);
    }
};

// A loan of the library, with the turn on its writer: other threads that want to send wait for its
// end. Its destructor drops the loan.
class OpenLoan {
public:
    // Waits for room. Raises what send() raises.
    OpenLoan(Writer& writer, std::size_t nbytes, Deadline deadline) : writer_(writer) {
        Turn turn(writer_);
        turn.run(
            deadline, nullptr, [&] { return writer_.core.has_room(nbytes); },
            [&](const Wait& wait) { return store(writer_.core.loan(nbytes, wait), loan_); });
        if (!writer_.keep_turn()) {
            loan_.reset();
            writer_.check_usable();  // raises Closed
        }
        turn.detach();
    }
    OpenLoan(const OpenLoan&) = delete;
    OpenLoan& operator=(const OpenLoan&) = delete;
    ~OpenLoan() { end(); }

    [[nodiscard]] Writer& writer() const noexcept { return writer_; }
    [[nodiscard]] std::uint64_t file_offset() const noexcept { return loan_->file_offset(); }

    // Sends and ends the loan. Closed if the writer was closed meanwhile: then nothing is sent.
    void commit() {
        const bool closed = writer_.is_closed();
        Status outcome = closed ? Status::ok() : loan_->commit(Format::Bytes);
        end();
        if (closed) {
            writer_.check_usable();  // raises Closed
        }
        check(outcome);
    }

private:
    void end() noexcept {
        if (!loan_) {
            return;
        }
        loan_.reset();
        if (!writer_.is_foreign()) {
            writer_.leave();
        }
    }

    Writer& writer_;
    std::optional<BroadcastLoan> loan_;
};

// The context manager.
class LoanBlock {
public:
    LoanBlock(nb::handle_t<Writer> writer, std::size_t nbytes, Deadline deadline)
        : writer_(nb::borrow(writer)), nbytes_(nbytes), deadline_(deadline) {}
    LoanBlock(const LoanBlock&) = delete;
    LoanBlock& operator=(const LoanBlock&) = delete;
    ~LoanBlock() {
        if (loan_ && !loan_->writer().is_foreign()) {
            nb::error_scope keep_error;  // an exception may be in flight
            try {
                detach();
            } catch (...) {
                // No memory to cut off, or a warning that was made an error: the loan is dropped.
            }
        }
    }

    nb::object enter() {
        if (entered_) {
            raise_error(ErrorCode::Busy, "a loan can be entered once; ask for another one");
        }
        entered_ = true;
        loan_.emplace(*nb::inst_ptr<Writer>(writer_), nbytes_, deadline_);
        try {
            expose();
        } catch (...) {
            loan_.reset();
            throw;
        }
        return view_;
    }

    void exit(bool failed) {
        if (!loan_) {
            raise_error(ErrorCode::Closed, "this loan is not open");
        }
        if (loan_->writer().is_foreign()) {
            loan_->writer().check_usable();  // raises WrongProcess
        }
        try {
            detach();
            if (!failed) {
                loan_->commit();
            }
        } catch (...) {
            loan_.reset();
            throw;
        }
        loan_.reset();
    }

private:
    void expose() {
        std::shared_ptr<LoanWindow>& window = loan_->writer().window;
        if (!window) {
            const Writer& writer = loan_->writer();
            const int descriptor = writer.check_descriptor(writer.core.descriptor());
            auto fresh = std::make_shared<LoanWindow>(descriptor);
            // Raises if the descriptor was closed meanwhile.
            writer.check_descriptor(writer.core.descriptor());
            window = std::move(fresh);
        }
        range_ = {loan_->file_offset(), nbytes_};
        memory_ = nb::cast(LoanMemory{.window = window, .range = range_});
        life_ = Life(memory_);
        view_ = nb::steal(PyMemoryView_FromObject(memory_.ptr()));
        if (!view_.is_valid()) {
            throw nb::python_error();
        }
    }

    // Releases the view, and cuts off what outlives it: afterwards nothing in Python can write to
    // the loan's bytes.
    void detach() {
        if (!view_.is_valid()) {
            return;
        }
        const nb::object released = nb::steal(PyObject_CallMethod(view_.ptr(), "release", nullptr));
        if (!released.is_valid()) {
            PyErr_Clear();  // an export of the view itself, which keeps the memory alive
        }
        view_.reset();
        memory_.reset();
        if (life_.is_over()) {
            return;
        }
        const std::shared_ptr<LoanWindow> window = std::move(loan_->writer().window);
        window->cut_off(range_);
        if (PyErr_WarnEx(PyExc_ResourceWarning,
                         "an array or memoryview made of a loan outlives its block; it was copied "
                         "to private memory (delete it inside the block to save the copy)",
                         1) != 0) {
            throw nb::python_error();
        }
    }

    nb::object writer_;
    std::size_t nbytes_;
    Deadline deadline_;
    std::optional<OpenLoan> loan_;
    FileRange range_;
    nb::object memory_;
    Life life_;
    nb::object view_;
    bool entered_ = false;
};

}  // namespace

void bind_loan(nb::module_& module) {
    static PyType_Slot slots[] = {
        {Py_bf_getbuffer, reinterpret_cast<void*>(&LoanMemory::get_buffer)},
        {0, nullptr},
    };
    nb::class_<LoanMemory>(module, "_LoanMemory", nb::type_slots(slots),
                           nb::is_weak_referenceable());

    bind_block<LoanBlock>(module, "Loan",
                          "Room for one message in shared memory; made by "
                          "``BroadcastWriter.loan()``.\n\n"
                          "Can be entered once. Sent at the end of the block, dropped on an "
                          "exception.");
}

nb::object make_loan(nb::handle_t<Writer> writer, nb::handle nbytes, nb::handle timeout) {
    nb::inst_ptr<Writer>(writer)->check_usable();
    return make_object<LoanBlock>(writer, parse_bytes(nbytes, "nbytes"), parse_timeout(timeout));
}

}  // namespace penstock::py
