// Every operation of the Store that changes shared memory, as a scenario for the crash walk.
#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/crash/store_stage.hpp"

namespace penstock::trust {

// ---- joining and leaving
// ------------------------------------------------------------------------

class AttachStore : public StoreStruck {
public:
    using StoreStruck::StoreStruck;
    std::string act() override { return attach_line(); }
    [[nodiscard]] std::string must_pass() const override { return "membership.join.active"; }

protected:
    void start_victim() override { start(victim_, "the victim"); }
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
};

// The dead one in the place had one of everything, and a half-done change whose description the
// victim's own ones will replace; there is no other place.
class AttachOverTheDead : public AttachStore {
public:
    explicit AttachOverTheDead(std::string segment)
        : AttachStore(std::move(segment), {.participants = 3}) {}
    [[nodiscard]] std::string must_pass() const override { return "store.janitor.freeing"; }

protected:
    void set_up() override { leave_a_dead_one(reader_, "words.change.installed:1:kill"); }
};

// The store stays when the last one leaves: whether that was said does not depend on whether its
// caller lives.
class Persist : public StoreStruck {
public:
    using StoreStruck::StoreStruck;
    std::string act() override { return "persist"; }
    [[nodiscard]] std::string must_pass() const override { return "store.persist.stays"; }

protected:
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
    void check_name() override {
        require(!segments_left(segment_).empty(), "it was told to stay, and is not there");
        start_member(reader_, "the latecomer");
        must_promptly(reader_, "put 1 1000");
        reader_.actor.must("close");
        const KeptData kept = inspect_segment(segment_).kept;
        require(kept.persistent && kept.objects == 1, "it keeps " + kept.describe());
        require(!remove_if_abandoned(segment_), "it was collected with what it keeps");
        require(remove_if_abandoned(segment_, OnData::Remove), "it can't be removed");
        StoreStruck::check_name();
    }
};

// With a reservation and an object in hand, which it lets go first.
class CloseStore : public StoreStruck {
public:
    using StoreStruck::StoreStruck;
    std::string act() override { return "close"; }
    [[nodiscard]] std::string must_pass() const override { return "membership.leave.retired"; }

protected:
    void set_up() override {
        put(writer_, "8", kOther);
        victim_.actor.must("get 8");
        writer_.actor.must("remove 8");
        victim_.actor.must(std::string("reserve ") + kKey + " " + text(kStruck));
    }
    void finish_act() override { victim_.actor.must(attach_line()); }
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
    [[nodiscard]] std::uint64_t owned() const override { return taken(kStruck) + taken(kOther); }
};

// What it has in hand goes back as if it had died, and its handles change nothing any more.
class DepartFromStore : public CloseStore {
public:
    using CloseStore::CloseStore;
    std::string act() override { return "depart"; }
};

// ---- writing
// ------------------------------------------------------------------------

// It is invisible before the commit, which follows when the victim could go on.
class Reserve : public StoreStruck {
public:
    Reserve(std::string segment, const StoreStageShape& shape, bool is_key_first)
        : StoreStruck(std::move(segment), shape), is_key_first_(is_key_first) {}
    std::string act() override { return std::string("reserve ") + kKey + " " + text(kStruck); }
    [[nodiscard]] std::string must_pass() const override { return "store.reserve.allocated"; }

protected:
    void finish_act() override { victim_.actor.must(std::string("commit ") + kKey); }
    [[nodiscard]] Fate fate(bool is_complete) const override {
        return is_complete ? Fate::There : Fate::Gone;
    }
    [[nodiscard]] bool is_key_first() const override { return is_key_first_; }

private:
    bool is_key_first_;
};

// The store is full of what may go.
class ReserveEvicting : public Reserve {
public:
    using Reserve::Reserve;
    [[nodiscard]] std::string must_pass() const override { return "store.evict.freeing"; }

    void while_stopped() override {
        // What it was about to evict is not its own: neither the object nor its room.
        if (point == "store.evict.evicting" && occurrence == 1) {
            must_promptly(writer_, "room " + text(shape_.capacity - fixed_ - 64));
        }
        Reserve::while_stopped();
    }

protected:
    void set_up() override {
        writer_.actor.must("fill 10 8 " + text(kOther));
        reader_.actor.must("read 10");
        reader_.actor.must("read 12");
    }
    [[nodiscard]] std::uint64_t owned() const override {
        return taken(kStruck) + 2 * taken(kOther);
    }
};

// There are as many objects as the index has places.
class ReserveInFullIndex : public Reserve {
public:
    ReserveInFullIndex(std::string segment, const StoreStageShape& shape)
        : Reserve(std::move(segment), shape, true) {}
    [[nodiscard]] std::string must_pass() const override { return "store.evict.freeing"; }

protected:
    void set_up() override {
        constexpr unsigned kPlaces = 32;
        writer_.actor.must("fill 10 " + text(kPlaces - 2) + " 100");
    }
};

// The key is staged by a dead writer: the victim finds that out and reaps it.
class ReserveOverTheDead : public Reserve {
public:
    using Reserve::Reserve;
    [[nodiscard]] std::string must_pass() const override { return "store.janitor.freeing"; }

protected:
    void set_up() override {
        Party doomed;
        start_member(doomed, "the doomed");
        doomed.actor.must(std::string("reserve ") + kKey + " " + text(kStruck));
        kill(doomed);
    }
    // Until the victim goes on it may still be the dead one's.
    void look_at_struck() override {
        const Answer answer = promptly(writer_, std::string("put ") + kKey + " 10");
        if (answer.is_ok()) {
            must_promptly(reader_, std::string("remove ") + kKey);
        } else {
            require(answer.outcome == "Busy" && answer.number("peer") >= kVictimPlace,
                    "it is being written: " + answer.line());
        }
    }
    void accept_act(const Answer& answer) override {
        require(answer.is_ok(), "the act failed: " + answer.line());
    }
    [[nodiscard]] std::uint64_t owned() const override { return 2 * taken(kStruck); }
};

// What it is about is staged by the victim before the act.
class StagedStruck : public StoreStruck {
public:
    using StoreStruck::StoreStruck;

protected:
    void set_up() override {
        victim_.actor.must(std::string("reserve ") + kKey + " " + text(kStruck));
    }
};

class Commit : public StagedStruck {
public:
    Commit(std::string segment, const StoreStageShape& shape, bool is_alone)
        : StagedStruck(std::move(segment), shape), is_alone_(is_alone) {}
    std::string act() override { return std::string("commit ") + kKey; }
    [[nodiscard]] std::string must_pass() const override { return "store.commit.resident"; }

protected:
    void set_stage() override {
        if (!is_alone_) StagedStruck::set_stage();
    }
    [[nodiscard]] Fate fate(bool is_complete) const override {
        if (is_complete || point == "store.commit.resident" || point.starts_with("signal.")) {
            return Fate::There;
        }
        return point == "words.change.described" ? Fate::Gone : Fate::Either;
    }

private:
    bool is_alone_;  // the order is empty
};

// A waiter sleeps until it is there.
class CommitForAWaiter : public Commit {
public:
    CommitForAWaiter(std::string segment, const StoreStageShape& shape)
        : Commit(std::move(segment), shape, false) {}
    [[nodiscard]] std::string must_pass() const override { return "signal.wake.woken"; }

protected:
    void set_up() override {
        Commit::set_up();
        start_member(waiter_, "the waiter");
        waiter_.actor.park(std::string("wait ") + kKey + " 15000");
    }
    void look_at_struck() override {
        const std::int64_t since = os::monotonic_ns();
        Commit::look_at_struck();
        if (is_there_) waiter_gets(since);
    }
    void finish_act() override { waiter_gets(os::monotonic_ns()); }
    void reserve_key() override {
        const std::int64_t since = os::monotonic_ns();
        Commit::reserve_key();
        waiter_gets(since);
    }
    [[nodiscard]] bool is_key_first() const override { return true; }

private:
    void waiter_gets(std::int64_t since) {
        if (!waiter_.actor.is_started()) return;
        const Answer answer = waiter_.actor.answer();
        require(answer.is_ok(), "the waiter for it: " + answer.line());
        noticed_after(answer.number("t") - since, "the object that was waited for");
        waiter_.actor.must("close");
        waiter_.actor = Actor();
    }

    Party waiter_;
};

class Put : public StoreStruck {
public:
    using StoreStruck::StoreStruck;
    std::string act() override { return std::string("put ") + kKey + " " + text(kStruck); }
    [[nodiscard]] std::string must_pass() const override { return "store.commit.resident"; }

protected:
    [[nodiscard]] Fate fate(bool is_complete) const override {
        if (is_complete || point == "store.commit.resident") return Fate::There;
        return point.starts_with("words.change.") ? Fate::Either : Fate::Gone;
    }
};

class Abort : public StagedStruck {
public:
    using StagedStruck::StagedStruck;
    std::string act() override { return std::string("abort ") + kKey; }
    [[nodiscard]] std::string must_pass() const override { return "store.free.freed"; }

protected:
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
};

class Resize : public StagedStruck {
public:
    Resize(std::string segment, const StoreStageShape& shape, std::uint64_t bytes)
        : StagedStruck(std::move(segment), shape), bytes_(bytes) {}
    std::string act() override { return std::string("resize ") + kKey + " " + text(bytes_); }
    [[nodiscard]] std::string must_pass() const override { return "heap.resize.resized"; }

protected:
    void finish_act() override { victim_.actor.must(std::string("commit ") + kKey); }
    [[nodiscard]] Fate fate(bool is_complete) const override {
        return is_complete ? Fate::There : Fate::Gone;
    }
    [[nodiscard]] std::uint64_t struck_bytes() const override { return bytes_; }
    [[nodiscard]] std::uint64_t owned() const override { return taken(kStruck) + taken(bytes_); }

private:
    std::uint64_t bytes_;
};

// ---- reading
// ------------------------------------------------------------------------

// What it is about is there before the act.
class ObjectStruck : public StoreStruck {
public:
    using StoreStruck::StoreStruck;

protected:
    void set_up() override { put(writer_, kKey, kStruck); }
    [[nodiscard]] Fate fate(bool) const override { return Fate::There; }
};

// Dead, it pins nothing. Stopped, it pins what it has taken, which others' wants do not touch.
class Get : public ObjectStruck {
public:
    using ObjectStruck::ObjectStruck;
    std::string act() override { return std::string("get ") + kKey; }
    [[nodiscard]] std::string must_pass() const override { return "store.pin.held"; }

    void while_stopped() override {
        ObjectStruck::while_stopped();
        must_promptly(reader_, std::string("read ") + kKey);
    }

protected:
    void finish_act() override {
        must_promptly(writer_, "room " + text(shape_.capacity - fixed_ - taken(kStruck) - 64));
        victim_.actor.must(std::string("recheck ") + kKey);
        victim_.actor.must(std::string("release ") + kKey);
    }
};

// Readers move what they read to the end of the order.
class GetLru : public Get {
public:
    GetLru(std::string segment, bool is_before_newest)
        : Get(std::move(segment), {.eviction = "lru"}), is_before_newest_(is_before_newest) {}
    [[nodiscard]] std::string must_pass() const override { return "words.change.replaced"; }

protected:
    void set_up() override {
        Get::set_up();
        put(writer_, "9", kOther);
        if (!is_before_newest_) put(writer_, "10", kOther);
    }

private:
    bool is_before_newest_;
};

// Another is about to evict it, and stopped: before it looks for holders, or after.
class GetEvicting : public Get {
public:
    GetEvicting(std::string segment, const StoreStageShape& shape, std::string blow)
        : Get(std::move(segment), shape), blow_(std::move(blow)) {}

    // A reader may have taken it back by then: what Get asks for does not hold.
    void while_stopped() override {
        ObjectStruck::while_stopped();  // NOLINT(bugprone-parent-virtual-call)
    }

protected:
    void set_up() override {
        Get::set_up();
        start_member(evictor_, "the evictor");
        strike(evictor_, blow_, "room 700000");
    }
    void accept_act(const Answer& answer) override {
        // While the victim was stopped before it had it, it may have been evicted.
        is_held_ = answer.is_ok();
        if (blow_at == 0) Get::accept_act(answer);
    }
    void finish_act() override {
        if (is_held_) Get::finish_act();
    }
    void tidy_up() override {
        evictor_.actor.process().resume();
        const Answer answer = evictor_.actor.answer();
        require(answer.is_ok(), "the evictor: " + answer.line());
        evictor_.actor.must("close");
    }
    [[nodiscard]] Fate fate(bool is_complete) const override {
        return is_complete ? Fate::Either : Fate::There;
    }

private:
    std::string blow_;
    bool is_held_ = false;
    Party evictor_;
};

class Release : public ObjectStruck {
public:
    using ObjectStruck::ObjectStruck;
    std::string act() override { return std::string("release ") + kKey; }
    [[nodiscard]] std::string must_pass() const override { return "store.pin.dropped"; }

protected:
    void set_up() override {
        ObjectStruck::set_up();
        victim_.actor.must(std::string("get ") + kKey);
    }
};

// It was removed meanwhile, and goes with its last reader.
class ReleaseLast : public Release {
public:
    using Release::Release;
    [[nodiscard]] std::string must_pass() const override { return "store.collect.freeing"; }

    void while_stopped() override {
        // It has no holder any more, whichever was to free it.
        if (point == "store.pin.dropped") {
            must_promptly(writer_, "room " + text(shape_.capacity - fixed_ - 64));
        }
        Release::while_stopped();
    }

protected:
    void set_up() override {
        Release::set_up();
        writer_.actor.must(std::string("remove ") + kKey);
    }
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
};

// ---- removing and keeping
// ------------------------------------------------------------------------

class Remove : public ObjectStruck {
public:
    using ObjectStruck::ObjectStruck;
    std::string act() override { return std::string("remove ") + kKey; }
    [[nodiscard]] std::string must_pass() const override { return "store.remove.doomed"; }

protected:
    [[nodiscard]] Fate fate(bool is_complete) const override {
        if (is_complete) return Fate::Gone;
        if (point == "store.pin.held") return Fate::There;
        return point.starts_with("words.change.") ? Fate::Either : Fate::Gone;
    }
};

// A reader has it, and may go on.
class RemoveBesideAReader : public Remove {
public:
    using Remove::Remove;

protected:
    void set_up() override {
        Remove::set_up();
        reader_.actor.must(std::string("get ") + kKey);
    }
    void tidy_up() override {
        reader_.actor.must(std::string("recheck ") + kKey);
        reader_.actor.must(std::string("release ") + kKey);
        is_read_ = false;
    }
    [[nodiscard]] std::uint64_t also_stays() const override {
        return is_read_ && !(is_there_ && !evicts()) ? taken(kStruck) : 0;
    }

private:
    bool is_read_ = true;
};

// All that is free but a little: and the heap's map has been told that nothing larger is there.
class RemoveWhenTheMapIsLow : public Remove {
public:
    explicit RemoveWhenTheMapIsLow(std::string segment)
        : Remove(std::move(segment), {.eviction = "none"}) {}
    [[nodiscard]] std::string must_pass() const override { return "heap.map.raised"; }
    [[nodiscard]] bool is_about(const std::string& passed) const override {
        return passed.starts_with("heap.");
    }

protected:
    void set_up() override {
        put(writer_, kKey, struck_bytes());
        const Answer answer = reader_.actor.ask("room 50000");
        require(answer.outcome == "NoSpace", "there is no room, and: " + answer.line());
    }
    [[nodiscard]] std::uint64_t struck_bytes() const override {
        constexpr std::uint64_t kLittle = 8192;
        return (shape_.capacity - fixed_ - kLittle) / 64 * 64 - 64;
    }
    [[nodiscard]] std::uint64_t owned() const override { return taken(struck_bytes()); }
};

// Everything, whether kept or held; a writer is refused at its commit.
class Clear : public ObjectStruck {
public:
    using ObjectStruck::ObjectStruck;
    std::string act() override { return "clear"; }
    [[nodiscard]] std::string must_pass() const override { return "store.remove.doomed"; }

protected:
    void set_stage() override {
        reader_.actor.must("reserve 8 " + text(kFixed));
        fixed_ = taken(kFixed);
    }
    void set_up() override {
        ObjectStruck::set_up();
        writer_.actor.must("fill 10 3 " + text(kOther));
        writer_.actor.must("pin 11");
    }
    void check_room() override {
        writer_.actor.ask("unpin 11");  // if it is still there
        ObjectStruck::check_room();
    }
    void check_room_beside() override {}
    void tidy_up() override {
        const Answer answer = reader_.actor.ask("commit 8");
        const bool is_cleared = answer.outcome == "Expired";
        require(is_cleared || (answer.is_ok() && !is_complete_), "its commit: " + answer.line());
        fixed_ = 0;
    }
    void accept_act(const Answer& answer) override {
        ObjectStruck::accept_act(answer);
        is_complete_ = true;
    }
    [[nodiscard]] Fate fate(bool is_complete) const override {
        return is_complete ? Fate::Gone : Fate::Either;
    }

private:
    bool is_complete_ = false;
};

// Kept or not any more: that does not depend on whether its caller lives.
class Keep : public ObjectStruck {
public:
    Keep(std::string segment, const StoreStageShape& shape, bool keeps)
        : ObjectStruck(std::move(segment), shape), keeps_(keeps) {}
    std::string act() override { return (keeps_ ? "pin " : "unpin ") + std::string(kKey); }
    [[nodiscard]] std::string must_pass() const override { return "store.pin.dropped"; }

protected:
    void set_up() override {
        ObjectStruck::set_up();
        if (!keeps_) writer_.actor.must(std::string("pin ") + kKey);
    }
    void accept_act(const Answer& answer) override {
        ObjectStruck::accept_act(answer);
        is_complete_ = true;
    }
    void check_room() override {
        if (!is_kept()) return ObjectStruck::check_room();
        must_promptly(writer_, "room " + text(shape_.capacity - fixed_ - taken(kStruck) - 64));
        const std::uint64_t too_much = shape_.capacity - fixed_ - taken(kStruck);
        const Answer refused = writer_.actor.ask("room " + text(too_much));
        require(refused.outcome == "NoSpace", "more than there is: " + refused.line());
        must_promptly(reader_, std::string("read ") + kKey);
        writer_.actor.must(std::string("unpin ") + kKey);
        is_complete_ = !keeps_;
        is_let_go_ = true;
    }

private:
    [[nodiscard]] bool is_kept() const {
        const bool is_done = is_complete_ || point == "store.pin.dropped";
        return !is_let_go_ && is_done == keeps_;
    }

    bool keeps_;
    bool is_complete_ = false;
    bool is_let_go_ = false;
};

// ---- memory and the dead
// ------------------------------------------------------------------------

class Trim : public StoreStruck {
public:
    explicit Trim(std::string segment)
        : StoreStruck(std::move(segment), {.capacity = std::uint64_t{3} << 20U}) {}
    std::string act() override { return "trim"; }
    [[nodiscard]] std::string must_pass() const override { return "heap.trim.punched"; }

protected:
    void set_up() override {
        put(writer_, kKey, 2'500'000);
        writer_.actor.must(std::string("remove ") + kKey);
    }
    void accept_act(const Answer& answer) override {
        require(answer.number("bytes") > 0, "nothing was given back: " + answer.line());
    }
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
    [[nodiscard]] std::uint64_t owned() const override { return std::uint64_t{1} << 20U; }
};

// The dead one had a pin on what was removed, a reservation, and a change half done.
class ClearDead : public StoreStruck {
public:
    using StoreStruck::StoreStruck;
    std::string act() override { return "clear-dead"; }
    [[nodiscard]] std::string must_pass() const override { return "store.janitor.freeing"; }

protected:
    void set_up() override { leave_a_dead_one(writer_, "words.change.installed:2:kill"); }
    [[nodiscard]] Fate fate(bool) const override { return Fate::Gone; }
    [[nodiscard]] std::uint64_t owned() const override { return 3 * taken(kOther); }
};

// ---- beside a participant that is stopped in mid-change
// ------------------------------------------------------------------------

// Its words are half changed: the victim meets them, goes on with that first, and is struck.
template <typename Kind>
class BesideAHalfChange : public Kind {
public:
    template <typename... Rest>
    BesideAHalfChange(std::string segment, std::string before, std::string half,
                      const Rest&... rest)
        : Kind(std::move(segment), rest...), before_(std::move(before)), half_(std::move(half)) {}

protected:
    void set_up() override {
        Kind::start_member(staller_, "the staller");
        if (!before_.empty()) staller_.actor.must(before_);
        Kind::set_up();
        const std::string blow = before_.empty() ? "words.change.installed:4:stop"  // its room
                                                 : "words.change.installed:2:stop";
        Kind::strike(staller_, blow, half_);
    }
    void tidy_up() override {
        Kind::tidy_up();
        staller_.actor.process().resume();
        const Answer answer = staller_.actor.answer();
        require(answer.is_ok(), "the one stopped in the middle: " + answer.line());
        staller_.actor.must("close");
        is_over_ = true;
    }
    // Next to the fixed ones, and perhaps the staller's still.
    [[nodiscard]] std::uint64_t also_stays() const override {
        return Kind::also_stays() + (is_over_ ? 0 : Kind::taken(kOther));
    }

private:
    std::string before_;
    std::string half_;
    typename Kind::Party staller_;
    bool is_over_ = false;
};

template <typename Kind, typename... Rest>
Operation store_operation(const std::string& name, const Rest&... rest) {
    return {name, [rest...](const std::string& segment) {
                return std::make_unique<Kind>(segment, rest...);
            }};
}

inline std::vector<Operation> store_operations() {
    const StoreStageShape sieve;
    const StoreStageShape fifo{.eviction = "fifo"};
    const StoreStageShape lru{.eviction = "lru"};
    const StoreStageShape none{.eviction = "none"};
    const StoreStageShape few{.objects = 1};
    using Text = std::string;
    const Text other = std::to_string(kOther);
    constexpr std::uint64_t kShorter = 90'000;
    constexpr std::uint64_t kLonger = 300'000;
    return {
        store_operation<AttachStore>("attach", sieve),
        store_operation<AttachOverTheDead>("attach over the dead"),
        store_operation<Reserve>("reserve", none, false),
        store_operation<Reserve>("reserve, key first", sieve, true),
        store_operation<ReserveEvicting>("reserve evicting", sieve, false),
        store_operation<ReserveEvicting>("reserve evicting fifo", fifo, true),
        store_operation<ReserveInFullIndex>("reserve in a full index", few),
        store_operation<ReserveOverTheDead>("reserve over the dead", sieve, true),
        store_operation<ReserveOverTheDead>("reserve over the dead, room first", none, false),
        store_operation<Commit>("commit", sieve, false),
        store_operation<Commit>("commit the first", sieve, true),
        store_operation<CommitForAWaiter>("commit for a waiter", sieve),
        store_operation<Put>("put", lru),
        store_operation<Abort>("abort", none),
        store_operation<Resize>("resize shorter", none, kShorter),
        store_operation<Resize>("resize longer", sieve, kLonger),
        store_operation<Get>("get", sieve),
        store_operation<GetLru>("get lru", false),
        store_operation<GetLru>("get lru before the newest", true),
        store_operation<GetEvicting>("get what is being evicted", sieve,
                                     Text("store.evict.evicting:1:stop")),
        // Its first change was the reservation's, its second is to take the object out.
        store_operation<GetEvicting>("get what is as good as evicted", sieve,
                                     Text("words.change.described:2:stop")),
        store_operation<Release>("release", sieve),
        store_operation<ReleaseLast>("release the last", none),
        store_operation<Remove>("remove", none),
        store_operation<RemoveBesideAReader>("remove beside a reader", none),
        store_operation<RemoveWhenTheMapIsLow>("remove when the map is low"),
        store_operation<Clear>("clear", sieve),
        store_operation<Keep>("pin", sieve, true),
        store_operation<Keep>("unpin", sieve, false),
        store_operation<Trim>("trim"),
        store_operation<ClearDead>("clear the dead", sieve),
        store_operation<Persist>("persist", sieve),
        store_operation<CloseStore>("close", none),
        store_operation<DepartFromStore>("depart", none),
        store_operation<BesideAHalfChange<Reserve>>("reserve beside a half reserve", Text(),
                                                    "put 9 " + other, sieve, false),
        store_operation<BesideAHalfChange<Commit>>(
            "commit beside a half commit", "reserve 9 " + other, Text("commit 9"), sieve, false),
        store_operation<BesideAHalfChange<Remove>>("remove beside a half remove", "put 9 " + other,
                                                   Text("remove 9"), sieve),
        store_operation<BesideAHalfChange<Abort>>("abort beside a half abort", "reserve 9 " + other,
                                                  Text("abort 9"), none),
    };
}

}  // namespace penstock::trust
