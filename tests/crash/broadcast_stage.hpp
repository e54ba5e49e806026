// The cast of the Broadcast scenarios: a writer, two readers, an outsider. And the promises as
// checks: nothing lost, doubled, torn or leaked, and none blocked but by a participant that the
// contract names.
#pragma once

#include <array>
#include <string>

#include "penstock/broadcast.hpp"
#include "tests/support/broadcast_actor.hpp"
#include "tests/support/crash_walk.hpp"

namespace penstock::trust {

class BroadcastStage : public Scenario {
public:
    explicit BroadcastStage(std::string segment) : segment_(std::move(segment)) {}

protected:
    static constexpr const char* kShape =
        " 2 16384 1048576 raise";  // a ring of 16 KiB, 16 granules
    static constexpr const char* kSmall = "1000";
    static constexpr const char* kLarge = "100000";
    static constexpr std::int64_t kLargeBlock = std::int64_t{2} * 65536;
    static constexpr int kShortWait = 150;  // ms

    static Actor& start(Actor& actor, const std::string& name) {
        actor = Actor(name, Process::start(kBroadcastRole));
        return actor;
    }
    void start_writer() {
        start(writer_, "the writer").must("create " + segment_ + kShape);
        accepted_ = 0;
    }
    void start_reader(unsigned rank) {
        start(readers_.at(rank), "reader " + std::to_string(rank));
        readers_[rank].must("attach " + segment_ + " " + std::to_string(rank) + " 1000");
    }
    void start_everybody() {
        start_writer();
        start_reader(0);
        start_reader(1);
    }

    void tell_writer(int count, const std::string& size) {
        writer_.tell("send " + std::to_string(count) + " " + size + " 5000");
    }
    void tell_reader(unsigned rank, std::int64_t count) {
        readers_.at(rank).tell("recv " + std::to_string(count) + " 5000");
    }
    // Sends, and has both readers receive it at the same time.
    void flow(int count, const std::string& size) {
        tell_writer(count, size);
        tell_reader(0, count);
        tell_reader(1, count);
        accept(writer_.answer());
        received(0, readers_[0].answer());
        received(1, readers_[1].answer());
    }
    // Sends until there is no room; how many messages that took.
    std::int64_t fill_ring() {
        const std::int64_t before = accepted_;
        const Answer answer = writer_.ask("send 1000 1000 0");
        require(answer.outcome == "Timeout", "the ring is never full: " + answer.line());
        accepted_ = answer.number("sent");
        return accepted_ - before;
    }
    void accept(const Answer& answer) {
        require(answer.is_ok(), "the writer could not send: " + answer.line());
        accepted_ = answer.number("sent");
    }
    // The reader has got everything that was accepted, in order, and nothing else.
    void received(unsigned rank, const Answer& answer) const {
        require(answer.is_ok(), "reader " + std::to_string(rank) + " failed: " + answer.line());
        is_up_to_date(rank, answer);
    }
    void is_up_to_date(unsigned rank, const Answer& answer) const {
        require(answer.number("next") == accepted_, "reader " + std::to_string(rank) + " is at " +
                                                        answer.text("next") + ", the writer at " +
                                                        std::to_string(accepted_));
    }
    // Receives what is there; it must end with `outcome`.
    Answer drain(unsigned rank, const std::string& outcome, int wait = kShortWait) {
        Answer answer = readers_.at(rank).ask("drain " + std::to_string(wait));
        require(answer.outcome == outcome, "reader " + std::to_string(rank) + " should end with " +
                                               outcome + ", not: " + answer.line());
        return answer;
    }

    // After two large messages that all have let go: only the second one's block is not free.
    void check_no_block_leaked() {
        const std::int64_t held = writer_.must("stats").number("held_bytes");
        require(held == kLargeBlock, std::to_string(held) + " bytes of blocks are held, and " +
                                         std::to_string(kLargeBlock) + " should be");
    }
    // All leave in good order, and the name goes with the last.
    void everybody_leaves() {
        writer_leaves();
        for (const unsigned rank : {0U, 1U}) {
            is_up_to_date(rank, drain(rank, "Closed"));
            readers_.at(rank).must("close-reader");
        }
        check_name_is_free();
    }
    void writer_leaves() {
        const std::int64_t deaths = writer_.must("close-writer").number("deaths");
        require(deaths >= least_deaths_ && deaths <= most_deaths_,
                "the writer was told of " + std::to_string(deaths) + " deaths, not of " +
                    std::to_string(least_deaths_) + " to " + std::to_string(most_deaths_));
        least_deaths_ = most_deaths_ = 0;
    }
    void check_name_is_free() const {
        require(segments_left(segment_).empty(), "the last one left, and its name is still there");
    }
    // Whatever happened, the name can be used again, and it all works.
    void start_over() {
        start_everybody();
        flow(20, kSmall);
        flow(1, kLarge);
        everybody_leaves();
    }

    // What the control block says now, seen from outside.
    [[nodiscard]] BroadcastInfo look() const { return inspect_broadcast(segment_); }
    static const Participant* find_slot(const BroadcastInfo& info, unsigned slot) {
        for (const Participant& who : info.segment.participants) {
            if (who.slot == slot) return &who;
        }
        return nullptr;
    }
    // A create of the name meanwhile is told that it is taken, and soon.
    void check_name_is_taken() {
        const std::int64_t begun = os::monotonic_ns();
        const Answer answer = start(outsider_, "the outsider").ask("create " + segment_ + kShape);
        require(answer.outcome == "AlreadyExists", "a second create gave " + answer.line());
        require(os::monotonic_ns() - begun < 2'000'000'000, "a second create hung for 2 s");
    }

    std::string segment_;
    Actor writer_;
    std::array<Actor, 2> readers_;
    Actor outsider_;
    std::int64_t accepted_ = 0;      // messages of which the writer has heard that they are sent
    std::int64_t least_deaths_ = 0;  // of which the writer must have been told in the end
    std::int64_t most_deaths_ = 0;
};

// The writer is struck. Reader 0 is parked in recv, reader 1 is idle or does what the act needs.
class WriterStruck : public BroadcastStage {
public:
    using BroadcastStage::BroadcastStage;

    void prepare() override {
        start_everybody();
        set_up();
        readers_[0].park("drain -1");
    }
    Actor& victim() override { return writer_; }

    void after_completion(const Answer& answer) override {
        accept_act(answer);
        catch_up();
        is_up_to_date(1, drain(1, "Timeout", 1));
        send_to_reader_1(5, kSmall);
        send_to_reader_1(1, kLarge);
        send_to_reader_1(1, kLarge);
        check_no_block_leaked();
        writer_leaves();
        ended(0, readers_[0].answer(), "Closed");
        drain(1, "Closed");
        readers_leave();
        start_over();
    }

    void after_death() override {
        const Answer parked = readers_[0].answer();
        ended(0, parked, end_after_death());
        noticed_after(parked.number("t") - blow_at, "a parked reader's error");
        catch_up_after_death();
        const Answer other = drain(1, parked.outcome, 5000);
        require(other.number("next") == parked.number("next"),
                "the readers did not get the same: " + parked.line() + ", " + other.line());
        readers_leave();
        start_over();
    }

    void while_stopped() override {
        const auto early = readers_[0].hear(Milliseconds(kShortWait));
        require(!early, "a reader took a stopped writer for dead: " + (early ? early->line() : ""));
        check_name_is_taken();
        const BroadcastInfo info = look();
        const Participant* writer = find_slot(info, 0);
        require(writer != nullptr && writer->alive && writer->stopped,
                "the writer should be shown as alive and stopped");
    }

protected:
    virtual void set_up() {}
    virtual void accept_act(const Answer& answer) { accept(answer); }
    // What reader 1 has yet to do, in the test's plan, to come to where the writer is.
    virtual void catch_up() { drain(1, "Timeout", kShortWait); }
    virtual void catch_up_after_death() {}
    [[nodiscard]] virtual std::string end_after_death() const { return "PeerDied"; }

    // All that was accepted has come, and of what was under way all or nothing.
    void ended(unsigned rank, const Answer& answer, const std::string& outcome) const {
        require(answer.outcome == outcome, "reader " + std::to_string(rank) + " should end with " +
                                               outcome + ", not: " + answer.line());
        const std::int64_t next = answer.number("next");
        require(next >= accepted_ && next <= accepted_ + under_way_,
                "reader " + std::to_string(rank) + " ended at " + std::to_string(next) + " of " +
                    std::to_string(accepted_) + " accepted and " + std::to_string(under_way_) +
                    " under way");
    }
    void send_to_reader_1(int count, const std::string& size) {
        tell_writer(count, size);
        tell_reader(1, count);
        accept(writer_.answer());
        received(1, readers_[1].answer());
        // The parked reader too, before anything else is sent.
        require(await(kPatience, [this] { return look().readers.at(0).lag_messages == 0; }),
                "the parked reader stands still");
    }
    void readers_leave() {
        readers_[0].must("close-reader");
        readers_[1].must("close-reader");
        check_name_is_free();
    }

    std::int64_t under_way_ = 1;  // messages that the act may have published before it died
};

// Reader 1 is struck. The writer and reader 0 go on.
class ReaderStruck : public BroadcastStage {
public:
    using BroadcastStage::BroadcastStage;

    void prepare() override {
        start_everybody();
        set_up();
    }
    Actor& victim() override { return readers_[kVictim]; }

    void after_completion(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
        catch_up_reader_0();
        catch_up();
        check_everything_works();
    }

    void after_death() override {
        const BroadcastInfo info = look();
        const auto life = info.readers.at(kVictim).life;
        const bool is_expected = life == BroadcastReaderState::Life::Expected;
        const bool must_be_told =
            life == BroadcastReaderState::Life::Active && find_slot(info, kVictimSlot) != nullptr;
        if (is_expected) start_reader(kVictim);  // the writer waits for it, as the contract says
        tell_writer(40, kSmall);
        tell_reader(0, 40 + behind_);
        if (is_expected) tell_reader(kVictim, 40 + accepted_);
        const Answer sent = writer_.answer();
        accept(sent);
        received(0, readers_[0].answer());
        behind_ = 0;
        if (is_expected) received(kVictim, readers_[kVictim].answer());
        least_deaths_ = std::max<std::int64_t>(least_deaths_, must_be_told ? 1 : 0);
        most_deaths_ += 1;
        if (must_be_told) check_told(sent);
        if (!is_expected) start_replacement();
        check_everything_works();
    }

    void while_stopped() override {
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
        const Answer other = readers_[0].answer();
        require(other.outcome == "Timeout", "reader 0: " + other.line());
        is_up_to_date(0, other);
        behind_ = 0;
    }

protected:
    static constexpr unsigned kVictim = 1;
    static constexpr unsigned kVictimSlot = 2;

    virtual void set_up() {}
    // Brings reader 1, which has survived, to where the writer is; or replaces it if it has left.
    virtual void catch_up() { is_up_to_date(kVictim, drain(kVictim, "Timeout")); }

    void catch_up_reader_0() {
        if (behind_ == 0) return;
        received(0, readers_[0].ask("recv " + std::to_string(behind_) + " 5000"));
        behind_ = 0;
    }
    // A replacement begins with the next message that is sent.
    void start_replacement() {
        start_reader(kVictim);
        replacement_begins_at_ = accepted_;
    }
    void check_everything_works() {
        flow(20, kSmall);
        const std::int64_t first = readers_[kVictim].must("recv 0 0").number("first");
        require(!replacement_begins_at_ || first == *replacement_begins_at_,
                "the replacement began with message " + std::to_string(first));
        flow(1, kLarge);
        flow(1, kLarge);
        check_no_block_leaked();
        everybody_leaves();
        start_over();
    }

    // A dead reader that gated the writer has been found where the writer had to wait for it.
    void check_told(const Answer& sent) {
        require(sent.number("deaths") >= 1 && sent.number("last_dead") == kVictim,
                "the writer should be told of the death of rank 1: " + sent.line());
        noticed_after(sent.number("error_us") * 1000, "the writer's PeerDied");
    }

    // As blocked_by() of the actor should give it.
    std::string name_of_victim(const BroadcastInfo& info) {
        const bool is_expected =
            info.readers.at(kVictim).life == BroadcastReaderState::Life::Expected;
        if (find_slot(info, kVictimSlot) == nullptr && is_expected) return "1/0/expected";
        return "1/" + std::to_string(victim().process().pid()) +
               (is_expected ? "/expected" : "/active") + "/stopped/alive";
    }
    void check_timeout_names(const std::string& wanted) {
        const Answer watched =
            writer_.ask(std::string("watched-send ") + kSmall + " " + std::to_string(kShortWait));
        require(watched.outcome == "Timeout", "blocked, and then not: " + watched.line());
        const std::int64_t took = watched.number("took_us") / 1000;
        require(took >= kShortWait - 1, "a timeout came early: " + watched.line());
        noticed_after((took - kShortWait) * 1'000'000, "the end of a timeout");
        const std::string named = watched.text("blocked_by");
        // Between taking the rank's lock and signing, its name can't be known.
        if (point == "membership.join.locked" && named.starts_with("1/")) return;
        require(named == wanted, "blocked_by() says " + named + ", and it is " + wanted);
    }

    std::int64_t behind_ = 0;  // messages that reader 0 has not asked for yet
    std::optional<std::int64_t> replacement_begins_at_;
};

}  // namespace penstock::trust
