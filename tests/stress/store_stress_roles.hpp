// The workers of the Store stress: each puts, gets, holds, removes, keeps and gives up on its own
// until it is told to stop, is killed, or finds that a promise is broken, which ends it with exit
// code 3.
#pragma once

#include <atomic>
#include <cstdio>
#include <cstring>
#include <deque>
#include <string>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "penstock/store.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/scoreboard.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr unsigned kStoreWorkers = 4;
inline constexpr int kBrokenStorePromise = 3;

// Key k of one put is any number with k in its lowest bits: contents follow from the number.
inline constexpr unsigned kKeyBits = 20;
inline constexpr std::uint64_t kKeyMask = (std::uint64_t{1} << kKeyBits) - 1;

// Words of the scoreboard. A rank outlives its processes, and so does what it keeps by pin().
enum StoreScore : std::size_t { kTurns, kHits, kBytesPut, kBytesRead, kPutsOf = 8, kKeptOf = 16 };

[[noreturn]] inline void broken_store_promise(const std::string& what) {
    std::fprintf(stderr, "pid %d: %s\n", static_cast<int>(::getpid()), what.c_str());
    ::_exit(kBrokenStorePromise);
}

// store-worker NAME SCOREBOARD RANK SEED: "go", then "stop" or a death.
class StoreWorker {
public:
    explicit StoreWorker(const Words& words)
        : score_(words.at(1)), rank_(std::stoull(words.at(2))), dice_(std::stoull(words.at(3))),
          store_(Store::attach(words.at(0), Milliseconds(10'000))),
          most_bytes_(store_.capacity() / 256), keys_(store_.capacity() / most_bytes_ * 16) {}

    Answer obey(const Words& words) {
        if (words[0] == "go") {
            thread_ = std::thread([this] { work(); });
        } else if (words[0] == "stop") {
            is_stopping_ = true;
            thread_.join();
        } else if (words[0] == "close") {
            store_.close();
        }
        return ok();
    }

private:
    struct Held {
        std::uint64_t key;
        StoreObject object;
    };

    void work() {
        let_go_of_kept();  // of the predecessor
        while (!is_stopping_.load()) {
            turn();
            score_[kTurns].fetch_add(1);
        }
        held_.clear();
        let_go_of_kept();
    }
    void turn() {
        constexpr std::size_t kMaxHeld = 6;
        while (held_.size() > dice_.between(0, kMaxHeld)) let_go_of_one();
        const std::uint64_t kind = dice_.between(0, 99);
        if (kind < 70) return get_or_put(some_key());
        if (kind < 78) return get_batch();
        if (kind < 84) return put_batch();
        if (kind < 90) return remove(some_key());
        if (kind < 96) return give_up(some_key());
        keep_another();
    }

    // Some keys are asked for far more often than others.
    std::uint64_t some_key() {
        const std::uint64_t among = dice_.between(0, 1) == 0 ? keys_ / 16 : keys_;
        return dice_.between(0, among - 1);
    }
    // Most are small, most bytes are in the large ones.
    std::uint64_t some_size() {
        const std::uint64_t kind = dice_.between(0, 99);
        if (kind < 40) return dice_.between(8, 4096);
        return dice_.between(8, kind < 80 ? most_bytes_ / 8 : most_bytes_);
    }
    static std::string name_of(std::uint64_t key) { return "key-" + std::to_string(key); }
    std::uint64_t next_number(std::uint64_t key) {
        return (score_[kPutsOf + rank_].fetch_add(1) * kStoreWorkers + rank_) << kKeyBits | key;
    }

    // ---- reading

    void get_or_put(std::uint64_t key) {
        Result<StoreObject> object = store_.get(name_of(key));
        if (object) return take(key, *std::move(object));
        expect(object.status(), {ErrorCode::NotFound}, "get");
        put(key);
    }
    void take(std::uint64_t key, StoreObject object) {
        check(key, object);
        score_[kHits].fetch_add(1);
        score_[kBytesRead].fetch_add(object.bytes().size());
        held_.push_back({key, std::move(object)});
    }
    static void check(std::uint64_t key, const StoreObject& object) {
        std::uint64_t number = 0;
        if (object.bytes().size() < sizeof number) broken_store_promise("an object without number");
        std::memcpy(&number, object.bytes().data(), sizeof number);
        const std::string name = name_of(key);
        if ((number & kKeyMask) != key) {
            broken_store_promise(name + " has what was put as " + name_of(number & kKeyMask));
        }
        const std::string wrong = check_numbered(object.bytes(), number);
        if (!wrong.empty()) broken_store_promise(name + ": " + wrong);
        const std::string_view meta(reinterpret_cast<const char*>(object.meta().data()),
                                    object.meta().size());
        if (!meta.empty() && meta != name)
            broken_store_promise(name + " says of itself " + std::string(meta));
    }
    void let_go_of_one() {
        const auto at = static_cast<std::ptrdiff_t>(dice_.between(0, held_.size() - 1));
        check(held_[static_cast<std::size_t>(at)].key, held_[static_cast<std::size_t>(at)].object);
        held_.erase(held_.begin() + at);
    }
    void get_batch() {
        std::vector<std::uint64_t> keys;
        std::vector<std::string> names;
        for (unsigned i = 0; i < 6; ++i) {
            keys.push_back(some_key());
            names.push_back(name_of(keys.back()));
        }
        const std::vector<std::string_view> views(names.begin(), names.end());
        auto objects = store_.get_many(views, dice_.between(0, 1) == 0);
        for (std::size_t at = 0; at < objects.size(); ++at) {
            if (objects[at]) {
                take(keys[at], *std::move(objects[at]));
            } else {
                expect(objects[at].status(), {ErrorCode::NotFound}, "get_many");
            }
        }
    }

    // ---- writing

    void put(std::uint64_t key) {
        ReserveOptions options;
        const std::string name = name_of(key);
        if (dice_.between(0, 3) == 0) options.meta = std::as_bytes(std::span(name));
        if (dice_.between(0, 9) == 0) options.alignment = 4096;
        Result<StoreReservation> reservation = store_.reserve(name, some_size(), options);
        if (!reservation) return expect_taken(reservation.status());
        const auto address = reinterpret_cast<std::uintptr_t>(reservation->bytes().data());
        if (address % options.alignment != 0) broken_store_promise(name + " is not aligned");
        if (dice_.between(0, 9) == 0) {
            const Status status = reservation->resize(some_size());
            if (!status) expect(status, {ErrorCode::NoSpace}, "resize");
        }
        finish(*reservation, key);
    }
    void finish(StoreReservation& reservation, std::uint64_t key) {
        const std::uint64_t bytes = reservation.bytes().size();
        fill_numbered(reservation.bytes(), next_number(key));
        expect(reservation.commit(), {}, "commit");
        score_[kBytesPut].fetch_add(bytes);
    }
    void put_batch() {
        std::vector<std::uint64_t> keys;
        std::vector<std::string> names;
        std::vector<StoreRequest> requests;
        for (unsigned i = 0; i < 4; ++i) keys.push_back(some_key());
        for (const std::uint64_t key : keys) names.push_back(name_of(key));
        for (const std::string& name : names) requests.push_back({name, some_size()});
        auto reservations = store_.reserve_many(requests);
        for (std::size_t at = 0; at < reservations.size(); ++at) {
            if (!reservations[at]) {
                expect_taken(reservations[at].status());
            } else if (dice_.between(0, 4) != 0) {
                finish(*reservations[at], keys[at]);
            }
        }
    }
    void give_up(std::uint64_t key) {
        Result<StoreReservation> reservation = store_.reserve(name_of(key), some_size());
        if (!reservation) return expect_taken(reservation.status());
        std::memset(reservation->bytes().data(), 0xAA, reservation->bytes().size());
        if (dice_.between(0, 1) == 0) reservation->abort();
    }
    void remove(std::uint64_t key) {
        const Status status = store_.remove(name_of(key));
        if (!status) expect(status, {ErrorCode::NotFound}, "remove");
    }

    // ---- keeping

    [[nodiscard]] std::string kept_name() {
        return "kept-" + std::to_string(rank_) + "-" + std::to_string(score_[kKeptOf + rank_]);
    }
    // What no other touches is there until it is let go, however the store is pressed.
    void keep_another() {
        let_go_of_kept();
        const std::uint64_t number = score_[kKeptOf + rank_].fetch_add(1) + 1;
        std::vector<std::byte> bytes(most_bytes_ / 4);
        fill_numbered(bytes, number);
        expect(store_.put(kept_name(), bytes), {}, "put");
        is_kept_ = store_.retain(kept_name()).is_ok();  // unless it was evicted already
    }
    void let_go_of_kept() {
        const Result<StoreObject> object = store_.get(kept_name());
        if (is_kept_ && !object) broken_store_promise(kept_name() + " was kept, and is not there");
        if (object) {
            const std::string wrong = check_numbered(object->bytes(), score_[kKeptOf + rank_]);
            if (!wrong.empty()) broken_store_promise(kept_name() + ": " + wrong);
        }
        static_cast<void>(store_.release(kept_name()));
        is_kept_ = false;
    }

    // ---- answers

    // Another has it, or writes it. Room there is always: so little is pinned.
    static void expect_taken(const Status& status) {
        expect(status, {ErrorCode::AlreadyExists, ErrorCode::Busy}, "reserve");
    }
    static void expect(const Status& status, std::initializer_list<ErrorCode> others,
                       const char* what) {
        if (status) return;
        for (const ErrorCode other : others) {
            if (status.code() == other) return;
        }
        broken_store_promise(std::string(what) + ": " + std::string(to_string(status.code())) +
                             ": " + std::string(status.message()));
    }

    Scoreboard score_;
    std::uint64_t rank_;
    Dice dice_;
    Store store_;
    std::uint64_t most_bytes_;
    std::uint64_t keys_;
    std::deque<Held> held_;
    bool is_kept_ = false;
    std::atomic<bool> is_stopping_{false};
    std::thread thread_;
};

inline int play_store_worker(const Words& words) {
    StoreWorker worker(words);
    return listen([&worker](const Words& asked) { return worker.obey(asked); });
}

}  // namespace penstock::trust
