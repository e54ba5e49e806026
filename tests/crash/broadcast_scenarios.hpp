// Every operation of a Broadcast that changes shared memory, as a scenario for the crash walk.
// The victim, what the others have done before, and what they do meanwhile.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/crash/broadcast_stage.hpp"

namespace penstock::trust {

// ---- the writer is struck
// ------------------------------------------------------------------------

// A small message to a parked and an idle reader.
class SendInline : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 1 1000 5000"; }

protected:
    void set_up() override { flow(3, kSmall); }
};

// The record does not fit before the end of the ring: a padding record comes first.
class SendWrapping : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 1 3000 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "broadcast.send.padded"; }

protected:
    void set_up() override { flow(14, kSmall); }  // less than 3000 bytes are left to the end
};

// No room: reader 1 has taken nothing yet. It starts when the writer sleeps.
class SendBlocked : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 4 1000 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "broadcast.wait.noted"; }
    void meanwhile() override {
        writer_.await_rest();
        tell_reader(1, accepted_);
    }
    void while_stopped() override {
        readers_[1].answer();
        has_read_ = true;
        WriterStruck::while_stopped();
    }

protected:
    void set_up() override {
        fill_ring();
        under_way_ = 4;
    }
    void catch_up() override {
        if (!has_read_) readers_[1].answer();
        WriterStruck::catch_up();
    }
    void catch_up_after_death() override { readers_[1].answer(); }

private:
    bool has_read_ = false;
};

// Through a block of the arena that has to be made ready.
class SendLarge : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 1 100000 5000"; }

protected:
    void set_up() override { flow(1, kSmall); }
};

// Through a block that was used before: the first one is freed on the way.
class SendLargeAgain : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 1 200000 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "arena.free.freeing"; }

protected:
    void set_up() override { flow(1, kLarge); }
};

// The arena is full of what reader 1 has not taken yet. It starts when the writer sleeps.
class SendLargeBlocked : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 1 400000 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "broadcast.wait.noted"; }
    void meanwhile() override {
        writer_.await_rest();
        readers_[1].tell("recv 2 5000");
    }
    void while_stopped() override {
        readers_[1].answer();
        has_read_ = true;
        WriterStruck::while_stopped();
    }

protected:
    void set_up() override { accept(writer_.must("send 2 400000 5000")); }
    void catch_up() override {
        if (!has_read_) readers_[1].answer();
        WriterStruck::catch_up();
    }
    void catch_up_after_death() override { readers_[1].answer(); }

private:
    bool has_read_ = false;
};

class LoanAndCommit : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "loan-commit 1000 5000"; }
};

class LoanAndCommitLarge : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "loan-commit 100000 5000"; }
};

class LoanAndDropLarge : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "loan-drop 100000 5000"; }

protected:
    void set_up() override { under_way_ = 0; }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "dropping a loan failed: " + answer.line());
    }
};

// Two seconds after the last large message its memory goes back to the system.
class TrimWhenIdle : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 20 1000 5000"; }
    void meanwhile() override { readers_[1].tell("recv 20 5000"); }
    [[nodiscard]] std::string must_pass() const override { return "arena.trim.punched"; }
    [[nodiscard]] bool is_about(const std::string& name) const override {
        return name.starts_with("arena.");
    }
    void while_stopped() override {
        WriterStruck::while_stopped();
        require(look().stats.held_bytes <= kLargeBlock, "trimming has taken more than there is");
    }

protected:
    void set_up() override {
        flow(1, kLarge);
        const auto idle_until = SteadyClock::now() + Milliseconds(2050);
        await(Milliseconds(4000), [&] { return SteadyClock::now() >= idle_until; });
        under_way_ = 20;
    }
    void catch_up() override {
        readers_[1].answer();
        WriterStruck::catch_up();
    }
    void catch_up_after_death() override { readers_[1].answer(); }
};

// Closing while both readers are there: they drain, and the last of them removes the name.
class CloseWriter : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "close-writer"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "closing failed: " + answer.line());
        both_end_with("Closed");
    }
    // Every point of close() comes after the mark: the dead writer is not taken for a broken one.
    void after_death() override { both_end_with("Closed"); }
    void while_stopped() override {
        // Closed it is, whether or not the writer ever goes on.
        const Answer parked = readers_[0].answer();
        ended(0, parked, "Closed");
        noticed_after(parked.number("t") - blow_at, "a parked reader's Closed");
        early_ = parked;
        check_name_is_taken();  // by the readers at least
    }

protected:
    void set_up() override {
        accept(writer_.must("send 3 1000 5000"));
        under_way_ = 0;
    }

private:
    void both_end_with(const std::string& outcome) {
        ended(0, early_ ? *early_ : readers_[0].answer(), outcome);
        ended(1, drain(1, outcome, 5000), outcome);
        readers_leave();
        start_over();
    }
    std::optional<Answer> early_;
};

// The same with a loan open, which its handle drops afterwards.
class DepartWriter : public CloseWriter {
public:
    using CloseWriter::CloseWriter;
    std::string act() override { return "depart"; }

    void after_completion(const Answer& answer) override {
        writer_.must("drop");
        writer_.must("close-writer");
        CloseWriter::after_completion(answer);
    }

protected:
    void set_up() override {
        CloseWriter::set_up();
        writer_.must("loan 1000 5000");
    }
};

// The writer finds reader 1 dead where it has to wait, clears what that one held, and goes on.
class ReapReader : public WriterStruck {
public:
    using WriterStruck::WriterStruck;
    std::string act() override { return "send 6 1000 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "membership.reap.locked"; }

    void after_completion(const Answer& answer) override {
        accept_act(answer);
        start_reader(1);
        send_to_reader_1(20, kSmall);
        send_to_reader_1(1, kLarge);
        send_to_reader_1(1, kLarge);
        check_no_block_leaked();
        require(writer_.must("stats").number("reader_deaths") == 1, "one death, counted otherwise");
        writer_leaves();
        ended(0, readers_[0].answer(), "Closed");
        drain(1, "Closed");
        readers_leave();
        start_over();
    }
    void after_death() override {
        const Answer parked = readers_[0].answer();
        ended(0, parked, "PeerDied");
        noticed_after(parked.number("t") - blow_at, "a parked reader's error");
        readers_[0].must("close-reader");
        check_name_is_free();
        least_deaths_ = most_deaths_ = 0;
        start_over();
    }
    void while_stopped() override {
        // A replacement either has the rank by now or is told that it is taken; soon.
        Actor replacement;
        const std::int64_t begun = os::monotonic_ns();
        const Answer answer =
            start(replacement, "a replacement").ask("attach " + segment_ + " 1 0");
        require(os::monotonic_ns() - begun < 2'000'000'000, "a replacement hung for 2 s");
        require(answer.is_ok() || answer.outcome == "Busy",
                "a replacement got neither the rank nor Busy: " + answer.line());
        if (answer.is_ok()) replacement.must("close-reader");
        WriterStruck::while_stopped();
    }

protected:
    void set_up() override {
        flow(1, kSmall);
        accept(writer_.must("send 1 100000 5000"));
        readers_[0].must("recv 1 5000");
        readers_[1].must("hold 5000");
        readers_[1].must("keep 0");
        accept(writer_.must("send 12 1000 5000"));
        readers_[1].must("hold 5000");
        readers_[1].process().kill();
        require(readers_[1].process().wait(kPatience).has_value(), "a killed reader lives on");
        under_way_ = 6;
        least_deaths_ = most_deaths_ = 1;
    }
};

// The same, found while the writer waits for all readers to be there. The death is told of then and
// there, in place of the wait.
class WaitReadyFindsDeath : public ReapReader {
public:
    using ReapReader::ReapReader;
    std::string act() override { return "wait-ready 5000"; }

protected:
    void set_up() override {
        ReapReader::set_up();
        under_way_ = 0;
    }
    void accept_act(const Answer& answer) override {
        require(answer.outcome == "PeerDied" && answer.number("peer") == 1,
                "wait_ready should tell of the death of rank 1: " + answer.line());
        least_deaths_ = most_deaths_ = 0;  // told already, and not a second time
    }
};

// ---- a reader is struck
// --------------------------------------------------------------------------

// The very first reader of its rank: everything sent so far is kept for it.
class AttachFirst : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    void prepare() override {
        start_writer();
        start_reader(0);
        start(readers_[kVictim], "reader 1");
        accept(writer_.must("send 3 1000 5000"));
        behind_ = 3;
    }
    std::string act() override { return "attach " + segment_ + " 1 1000"; }

protected:
    void catch_up() override {
        const Answer answer = drain(kVictim, "Timeout");
        is_up_to_date(kVictim, answer);
        require(answer.number("first") == 0, "the first reader missed a message");
    }
};

// In place of one that left in good order.
class AttachReplacement : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    void prepare() override {
        start_everybody();
        flow(3, kSmall);
        readers_[kVictim].must("close-reader");
        accept(writer_.must("send 2 1000 5000"));
        behind_ = 2;
    }
    std::string act() override { return "attach " + segment_ + " 1 1000"; }

protected:
    void catch_up() override { drain(kVictim, "Timeout"); }
};

// In place of one that died with a message in the ring and a block in its hands.
class AttachAfterDeath : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    void prepare() override {
        start_everybody();
        flow(1, kSmall);
        accept(writer_.must("send 1 100000 5000"));
        readers_[0].must("recv 1 5000");
        readers_[kVictim].must("hold 5000");
        readers_[kVictim].must("keep 0");
        accept(writer_.must("send 3 1000 5000"));
        readers_[kVictim].must("hold 5000");
        readers_[kVictim].process().kill();
        require(readers_[kVictim].process().wait(kPatience).has_value(),
                "a killed reader lives on");
        start(readers_[kVictim], "the replacement");
        behind_ = 3;
        least_deaths_ = most_deaths_ = 1;
    }
    std::string act() override { return "attach " + segment_ + " 1 1000"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        catch_up_reader_0();
        drain(kVictim, "Timeout");
        // Messages were lost to the rank: the writer is told of it, once, though it never waited.
        check_everything_works();
    }
    // The writer sends into the stop, and may reap the first one then; after that it is as always.
    void while_stopped() override {
        accepted_ = writer_.ask("send 20 1000 50").number("sent");
        const BroadcastInfo info = look();
        const bool is_gating = info.readers.at(kVictim).life != BroadcastReaderState::Life::Vacant;
        writer_.tell("send 40 1000 " + std::to_string(kShortWait));
        readers_[0].tell("drain 1000");
        const Answer sent = writer_.answer();
        accepted_ = sent.number("sent");
        if (is_gating) {
            require(sent.outcome == "Timeout", "the writer should have waited: " + sent.line());
            check_timeout_names(name_of_victim(info));
        } else {
            require(sent.is_ok(), "a reader that gates nothing blocks the writer: " + sent.line());
        }
        is_up_to_date(0, readers_[0].answer());
        behind_ = 0;
    }
};

// A message that is there already.
class Receive : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "recv 1 5000"; }

protected:
    void set_up() override {
        accept(writer_.must("send 2 1000 5000"));
        behind_ = 2;
    }
};

// A message that comes while the reader sleeps.
class ReceiveParked : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "recv 1 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "signal.announce.set"; }
    void meanwhile() override {
        victim().await_rest();
        accept(writer_.must("send 1 1000 5000"));
        behind_ = 1;
    }
};

// The same into the caller's buffer: consumed without being handed out.
class ReceiveInto : public Receive {
public:
    using Receive::Receive;
    std::string act() override { return "recv-into 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "broadcast.release.published"; }
};

// A message whose release wakes the writer.
class ReceiveAndWake : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "recv " + std::to_string(in_ring_) + " 5000"; }
    [[nodiscard]] std::string must_pass() const override { return "signal.wake.cleared"; }
    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        take_writers_answer();
        catch_up_reader_0();
        catch_up();
        check_everything_works();
    }
    void after_death() override {
        take_writers_answer();
        ReaderStruck::after_death();
    }
    void while_stopped() override {
        take_writers_answer();
        ReaderStruck::while_stopped();
    }

protected:
    void set_up() override {
        in_ring_ = fill_ring();
        received(0, readers_[0].ask("recv " + std::to_string(in_ring_) + " 5000"));
        writer_.park("send 1 1000 300");  // reader 1 has taken nothing
    }
    // It went on, or reader 1 was struck before it had made room; then it is told so, or times out.
    void take_writers_answer() {
        if (is_taken_) return;
        is_taken_ = true;
        const Answer sent = writer_.answer();
        require(sent.is_ok() || sent.outcome == "Timeout" || sent.outcome == "PeerDied",
                "the blocked writer: " + sent.line());
        behind_ = sent.number("sent") - accepted_;
        accepted_ = sent.number("sent");
    }
    std::int64_t in_ring_ = 0;
    bool is_taken_ = false;
};

class ReceiveLarge : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "recv 1 5000"; }

protected:
    void set_up() override {
        accept(writer_.must("send 1 100000 5000"));
        behind_ = 1;
    }
};

// Holds the block instead of the ring.
class KeepLarge : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "keep 0"; }

protected:
    void set_up() override {
        accept(writer_.must("send 1 100000 5000"));
        readers_[0].must("recv 1 5000");
        readers_[kVictim].must("hold 5000");
    }
    void catch_up() override {
        readers_[kVictim].must("recheck");
        readers_[kVictim].must("release 0");
        ReaderStruck::catch_up();
    }
};

// Lets a kept block go, long after the ring has passed its record.
class ReleaseKept : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "release 0"; }

protected:
    void set_up() override {
        accept(writer_.must("send 1 100000 5000"));
        readers_[0].must("recv 1 5000");
        readers_[kVictim].must("hold 5000");
        readers_[kVictim].must("keep 0");
        flow(20, kSmall);
        readers_[kVictim].must("recheck");
    }
};

// The second of three goes first: nothing can be given back yet. Then the first.
class ReleaseOutOfOrder : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "release 0"; }

protected:
    void set_up() override {
        accept(writer_.must("send 3 1000 5000"));
        for (int i = 0; i < 3; ++i) readers_[kVictim].must("hold 5000");
        readers_[kVictim].must("release 1");
        require(look().readers.at(kVictim).lag_messages == 3, "released past a held message");
        behind_ = 3;
    }
    void catch_up() override {
        const std::uint64_t lag = look().readers.at(kVictim).lag_messages;
        require(std::cmp_equal(lag, accepted_ - 2), "two of three should be released");
        readers_[kVictim].must("recheck");
        readers_[kVictim].must("release 2");
        ReaderStruck::catch_up();
    }
};

class CloseReader : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "close-reader"; }

protected:
    void set_up() override {
        accept(writer_.must("send 3 1000 5000"));
        behind_ = 3;
    }
    void catch_up() override { start_replacement(); }
};

// The handle goes, a kept message stays; the reader leaves with the last of them.
class CloseReaderThatKeeps : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "release 0"; }

protected:
    void set_up() override {
        accept(writer_.must("send 1 100000 5000"));
        readers_[0].must("recv 1 5000");
        readers_[kVictim].must("hold 5000");
        readers_[kVictim].must("keep 0");
        readers_[kVictim].must("close-reader");
        readers_[kVictim].must("recheck");
    }
    void catch_up() override { start_replacement(); }
};

// With a message in the ring that it holds, and one in a block that it keeps: neither stays.
class DepartReader : public ReaderStruck {
public:
    using ReaderStruck::ReaderStruck;
    std::string act() override { return "depart"; }
    [[nodiscard]] std::string must_pass() const override { return "broadcast.leave.vacant"; }

protected:
    void set_up() override {
        accept(writer_.must("send 1 100000 5000"));
        readers_[kVictim].must("hold 5000");
        readers_[kVictim].must("keep 0");
        accept(writer_.must("send 3 1000 5000"));
        readers_[kVictim].must("hold 5000");
        behind_ = 4;
    }
    void catch_up() override {
        // While another has the rank, the departed handle lets go of what it held.
        Actor departed = std::move(readers_[kVictim]);
        start_replacement();
        departed.must("release 0");
        departed.must("release 1");
        departed.must("close-reader");
    }
};

// ---- the life of a segment
// -----------------------------------------------------------------------

// Creating, with nothing of that name there, or with what the dead left.
class Create : public BroadcastStage {
public:
    Create(std::string segment, bool is_replacing)
        : BroadcastStage(std::move(segment)), is_replacing_(is_replacing) {}

    void prepare() override {
        if (is_replacing_) {
            start_everybody();
            accept(writer_.must("send 3 1000 5000"));
            for (Actor* actor : {&writer_, &readers_[0], &readers_[1]}) {
                actor->process().kill();
                require(actor->process().wait(kPatience).has_value(), "a killed process lives on");
            }
        }
        start(writer_, "the writer");
    }
    Actor& victim() override { return writer_; }
    std::string act() override { return "create " + segment_ + kShape; }

    void after_completion(const Answer& answer) override {
        if (has_outsider_) {  // another process took the name while we stood still
            require(answer.outcome == "AlreadyExists", "two writers of one name: " + answer.line());
            std::swap(writer_, outsider_);
        } else {
            require(answer.is_ok(), "creating failed: " + answer.line());
        }
        accepted_ = 0;
        start_reader(0);
        start_reader(1);
        flow(20, kSmall);
        everybody_leaves();
        start_over();
    }
    void after_death() override {
        // An attach now finds nothing, or a writer that is dead.
        const Answer attached = start(readers_[0], "reader 0").ask("attach " + segment_ + " 0 0");
        if (attached.is_ok()) {
            drain(0, "PeerDied");
            readers_[0].must("close-reader");
        } else {
            require(attached.outcome == "NotFound" || attached.outcome == "PeerDied",
                    "attaching to what a dead creator left: " + attached.line());
        }
        start_over();
    }
    void while_stopped() override {
        const Answer attached = start(readers_[0], "reader 0").ask("attach " + segment_ + " 0 0");
        const std::int64_t begun = os::monotonic_ns();
        const Answer created = start(outsider_, "the outsider").ask(act());
        require(os::monotonic_ns() - begun < 2'000'000'000, "a second create hung for 2 s");
        if (attached.is_ok()) {
            require(created.outcome == "AlreadyExists", "two writers: " + created.line());
            drain(0, "Timeout");
            readers_[0].must("close-reader");
            return;
        }
        has_outsider_ = created.is_ok();
        require(created.is_ok() || created.outcome == "AlreadyExists",
                "a second create: " + created.line());
    }

private:
    bool is_replacing_;
    bool has_outsider_ = false;
};

// The last one to leave removes the name.
class LeaveAsLast : public BroadcastStage {
public:
    LeaveAsLast(std::string segment, bool is_reader)
        : BroadcastStage(std::move(segment)), is_reader_(is_reader) {}

    void prepare() override {
        start_writer();
        if (!is_reader_) return;
        start_reader(0);
        flow_to_0();
        writer_.must("close-writer");
    }
    Actor& victim() override { return is_reader_ ? readers_[0] : writer_; }
    std::string act() override { return is_reader_ ? "close-reader" : "close-writer"; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "leaving failed: " + answer.line());
        check_name_is_free();
        start_over();
    }
    void after_death() override { start_over(); }
    void while_stopped() override {
        // No wait for the stopped one is for ever; whether the name is free yet is its business.
        for (const std::string& line :
             {"create " + segment_ + kShape, "attach " + segment_ + " 1 0"}) {
            const std::int64_t begun = os::monotonic_ns();
            const Answer answer = start(outsider_, "the outsider").ask(line);
            require(os::monotonic_ns() - begun < 2'000'000'000, line + " hung for 2 s");
            require(answer.is_ok() || answer.outcome == "AlreadyExists" ||
                        answer.outcome == "NotFound" || answer.outcome == "Busy" ||
                        answer.outcome == "Closed",
                    line + " gave " + answer.line());
            if (answer.is_ok())
                outsider_.must(line.starts_with("create") ? "close-writer" : "close-reader");
        }
    }

private:
    void flow_to_0() {
        accept(writer_.must("send 2 1000 5000"));
        received(0, readers_[0].ask("recv 2 5000"));
    }
    bool is_reader_;
};

// What the dead left is removed from outside (`penstock gc`).
class RemoveAbandoned : public BroadcastStage {
public:
    using BroadcastStage::BroadcastStage;

    void prepare() override {
        start_everybody();
        for (Actor* actor : {&writer_, &readers_[0], &readers_[1]}) {
            actor->process().kill();
            require(actor->process().wait(kPatience).has_value(), "a killed process lives on");
        }
        start(outsider_, "the collector");
    }
    Actor& victim() override { return outsider_; }
    std::string act() override { return "remove " + segment_; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok() && answer.number("removed") == 1, "not removed: " + answer.line());
        check_name_is_free();
        start_over();
    }
    void after_death() override { start_over(); }
    void while_stopped() override {
        const std::int64_t begun = os::monotonic_ns();
        Actor other;
        const Answer answer = start(other, "another collector").ask(act());
        require(os::monotonic_ns() - begun < 2'000'000'000, "a second removal hung for 2 s");
        require(answer.is_ok() || answer.outcome == "NotFound",
                "a second removal: " + answer.line());
    }
};

template <typename Kind, typename... Rest>
Operation operation(const std::string& name, Rest... rest) {
    return {name, [rest...](const std::string& segment) {
                return std::make_unique<Kind>(segment, rest...);
            }};
}

inline std::vector<Operation> broadcast_operations() {
    return {
        operation<Create>("create", false),
        operation<Create>("create over the dead", true),
        operation<AttachFirst>("attach first"),
        operation<AttachReplacement>("attach replacement"),
        operation<AttachAfterDeath>("attach after a death"),
        operation<SendInline>("send inline"),
        operation<SendWrapping>("send with padding"),
        operation<SendBlocked>("send blocked"),
        operation<SendLarge>("send large"),
        operation<SendLargeAgain>("send large again"),
        operation<SendLargeBlocked>("send large blocked"),
        operation<LoanAndCommit>("loan and commit"),
        operation<LoanAndCommitLarge>("loan and commit large"),
        operation<LoanAndDropLarge>("loan and drop large"),
        operation<TrimWhenIdle>("trim when idle"),
        operation<Receive>("recv"),
        operation<ReceiveInto>("recv into"),
        operation<ReceiveParked>("recv parked"),
        operation<ReceiveAndWake>("recv and wake the writer"),
        operation<ReceiveLarge>("recv large"),
        operation<KeepLarge>("keep"),
        operation<ReleaseKept>("release kept"),
        operation<ReleaseOutOfOrder>("release out of order"),
        operation<CloseReader>("close reader"),
        operation<CloseReaderThatKeeps>("close reader that keeps"),
        operation<CloseWriter>("close writer"),
        operation<DepartReader>("reader departs"),
        operation<DepartWriter>("writer departs"),
        operation<LeaveAsLast>("writer leaves as last", false),
        operation<LeaveAsLast>("reader leaves as last", true),
        operation<ReapReader>("reap a dead reader"),
        operation<WaitReadyFindsDeath>("wait_ready finds a death"),
        operation<RemoveAbandoned>("remove abandoned"),
    };
}

}  // namespace penstock::trust
