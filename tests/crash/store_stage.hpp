// The promises of the Store as checks: whichever is struck, the others put and get, see the object
// that it is about whole or not at all, have the room and the key of the dead at once, and lose
// nothing that is pinned.
#pragma once

#include <string>

#include "tests/crash/store_cast.hpp"

namespace penstock::trust {

inline constexpr std::uint64_t kOther = 100'000;  // bytes of the objects beside

class StoreStruck : public StoreCast {
public:
    using StoreCast::StoreCast;

    void prepare() override {
        start(writer_, "the writer");
        writer_.actor.must(create_line());
        start_member(reader_, "the reader");
        set_stage();
        start_victim();
        set_up();
    }
    Actor& victim() override { return victim_.actor; }
    // What all segments have in common is walked with the queue.
    [[nodiscard]] bool is_about(const std::string& passed) const override {
        return !passed.starts_with("segment.");
    }

    void after_completion(const Answer& answer) override {
        accept_act(answer);
        finish_act();
        tidy_up();
        check_struck(true);
        flow();
        check_room();
        check_fixed();
        check_accounts();
        check_victim_works();
        everybody_leaves();
    }
    void after_death() override {
        await_death(victim_);
        check_struck(false);
        if (is_key_first()) {
            reserve_key();
            check_room();
        } else {
            check_room();
            reserve_key();
        }
        tidy_up();
        flow();
        check_fixed();
        writer_.actor.must("clear-dead");
        check_accounts();
        everybody_leaves();
    }
    void while_stopped() override {
        look_at_struck();
        flow();
        check_fixed();
        check_free_is_free();
        check_room_beside();
    }

protected:
    // Two objects that may not be evicted.
    virtual void set_stage() {
        put(writer_, kKept, kFixed);
        writer_.actor.must(std::string("pin ") + kKept);
        put(writer_, kHeld, kFixed);
        reader_.actor.must(std::string("get ") + kHeld);
        pinned_ = kept_ = 1;
        fixed_ = 2 * taken(kFixed);
    }
    virtual void start_victim() { start_member(victim_, "the victim"); }
    // One that had a pin on what `remover` removed, and a reservation, and died in a commit.
    void leave_a_dead_one(Party& remover, const std::string& blow) {
        Party doomed;
        start_member(doomed, "the doomed");
        put(writer_, "8", kOther);
        doomed.actor.must("get 8");
        remover.actor.must("remove 8");
        doomed.actor.must("reserve 9 " + text(kOther));
        doomed.actor.must("reserve 10 " + text(kOther));
        strike(doomed, blow, "commit 10");
        await_death(doomed);
    }
    virtual void set_up() {}
    virtual void accept_act(const Answer& answer) {
        require(answer.is_ok(), "the act failed: " + answer.line());
    }
    // What the victim has yet to do in the test's plan.
    virtual void finish_act() {}
    // What others than these three have yet to do.
    virtual void tidy_up() {}
    // After a death the key is wanted before the room is.
    [[nodiscard]] virtual bool is_key_first() const { return false; }

    // The struck object: it must be there, or must not; in between either.
    enum class Fate { There, Gone, Either };
    [[nodiscard]] virtual Fate fate(bool is_complete) const = 0;
    // The bytes that it has if it is there.
    [[nodiscard]] virtual std::uint64_t struck_bytes() const { return kStruck; }
    // Memory that may be the stopped victim's.
    [[nodiscard]] virtual std::uint64_t owned() const { return taken(kStruck); }
    // What the reader has besides, and what is not evicted where nothing is.
    [[nodiscard]] virtual std::uint64_t also_stays() const { return 0; }
    [[nodiscard]] bool evicts() const { return std::string(shape_.eviction) != "none"; }

    [[nodiscard]] bool is_past(std::initializer_list<const char*> points) const {
        return std::any_of(points.begin(), points.end(),
                           [this](const char* one) { return point == one; });
    }

    void check_struck(bool is_complete) {
        const Fate due = fate(is_complete);
        const Answer answer = promptly(reader_, std::string("read ") + kKey);
        if (answer.is_ok()) {
            require(due != Fate::Gone, "it is there, and should not be");
            require(std::cmp_equal(answer.number("bytes"), struck_bytes()),
                    "it is not whole: " + answer.line());
        } else {
            require(answer.outcome == "NotFound", "neither there nor not: " + answer.line());
            require(due != Fate::There, "it is not there, and should be");
        }
        is_there_ = answer.is_ok();
    }
    // After a death: it can be written.
    virtual void reserve_key() {
        const std::string line = std::string("put ") + kKey + " " + text(struck_bytes());
        const Answer answer = promptly(writer_, line);
        if (answer.outcome == "AlreadyExists") {
            // What the dead one had begun was finished by another that met it.
            require(is_there_ || fate(false) == Fate::Either, "it was not there: " + answer.line());
        } else {
            require(answer.is_ok(), "the key of the dead: " + answer.line());
            require(!is_there_ || fate(false) == Fate::Either, "it was there, and is put again");
        }
        must_promptly(reader_, std::string("read ") + kKey);
        is_there_ = true;
    }
    // Of a stopped one: found and right, or staged with its writer named, or not there.
    virtual void look_at_struck() {
        const Answer answer = promptly(reader_, std::string("look ") + kKey);
        if (answer.text("state") == "staged") {
            require(answer.number("peer") == kVictimPlace, "staged by another: " + answer.line());
            const Answer refused = promptly(writer_, std::string("put ") + kKey + " 10");
            require(refused.outcome == "Busy" && refused.number("peer") == kVictimPlace,
                    "it is being written: " + refused.line());
        }
        check_struck(false);
    }

    // Others put and get, whatever has become of the victim.
    void flow() {
        const std::string number = text(1000 + ++flows_);
        must_promptly(writer_, "put " + number + " 1000");
        must_promptly(reader_, "read " + number);
        must_promptly(reader_, "remove " + number);
        const Answer answer = promptly(writer_, "read " + number);
        require(answer.outcome == "NotFound", "removed, and there: " + answer.line());
    }
    // All that is not pinned by the living, in one piece.
    virtual void check_room() {
        std::uint64_t rest = shape_.capacity - fixed_ - also_stays();
        if (!evicts() && is_there_) rest -= taken(struck_bytes());
        must_promptly(writer_, "room " + text(rest - 64));
        if (evicts()) is_there_ = false;
    }
    // Beside a stopped one: what it has lies somewhere, so half of the rest is one piece.
    virtual void check_room_beside() {
        const std::uint64_t fixed = fixed_ + owned() + also_stays();
        if (!evicts() || shape_.capacity <= fixed) return;
        const std::uint64_t rest = (shape_.capacity - fixed) / 2;
        must_promptly(writer_, "room " + text(rest / 64 * 64 - 128));
    }
    // What the accounts call free can be had.
    void check_free_is_free() {
        const std::uint64_t free = look().largest_free;
        if (free > 128) must_promptly(writer_, "room " + text(free - 64));
    }
    void check_fixed() {
        if (kept_ > 0) must_promptly(reader_, std::string("read ") + kKept);
        if (pinned_ > 0) must_promptly(reader_, std::string("recheck ") + kHeld);
    }
    virtual void check_victim_works() {
        must_promptly(victim_, "put 900 1000");
        must_promptly(victim_, "read 900");
        must_promptly(reader_, "read 900");
    }

    virtual void everybody_leaves() {
        if (victim_.actor.is_started() && !victim_.actor.process().is_over()) {
            victim_.actor.must("close");
        }
        if (pinned_ > 0) reader_.actor.must(std::string("release ") + kHeld);
        if (kept_ > 0) reader_.actor.must(std::string("unpin ") + kKept);
        writer_.actor.must("clear");
        check_empty();
        // Nothing was lost of the index and the order: as many as fit go in, and out again.
        const std::uint64_t count = 8;
        writer_.actor.must("fill 2000 " + text(count) + " " + text(shape_.capacity / 8 - 64));
        pinned_ = kept_ = 0;
        check_accounts();
        if (evicts()) writer_.actor.must("room " + text(shape_.capacity - 64));
        for (std::uint64_t i = 0; !evicts() && i < count; ++i) {
            reader_.actor.must("remove " + text(2000 + i));
        }
        check_empty();
        reader_.actor.must("close");
        writer_.actor.must("close");
        check_name();
    }

    static constexpr std::int64_t kVictimPlace = 2;
    std::uint64_t fixed_ = 0;  // bytes of what stays whatever is wanted
    bool is_there_ = false;    // the struck object, when it was last looked for
    unsigned flows_ = 0;
};

}  // namespace penstock::trust
