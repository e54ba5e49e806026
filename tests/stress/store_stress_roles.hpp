// Workers of the Store stress: each puts, gets, holds, removes, retains and aborts on its own until
// it is told to stop, is killed, or finds a broken promise, which ends it with exit code 3.
#pragma once

#include <cstring>
#include <deque>
#include <string_view>

#include "penstock/store.hpp"
#include "tests/stress/stress.hpp"

namespace penstock::trust {

inline constexpr unsigned kStoreWorkers = 4;

// Object numbers of key k have k in their lowest bits: contents follow from the number.
inline constexpr unsigned kKeyBits = 20;
inline constexpr std::uint64_t kKeyMask = (std::uint64_t{1} << kKeyBits) - 1;

// Words that all processes share. A rank, with the objects that it retains, outlives its processes.
enum StoreScore : std::size_t {
    kTurns,
    kHits,
    kBytesPut,
    kBytesRead,
    kPutsOf = 8,
    kRetainedOf = 16,
    kStoreScores = 24
};

// store-worker NAME SCORES RANK SEED
class StoreWorker : public StressWorker<StoreWorker> {
public:
    explicit StoreWorker(const Words& words)
        : score_(words.at(1)), rank_(std::stoull(words.at(2))), dice_(std::stoull(words.at(3))),
          store_(Store::attach(words.at(0), Milliseconds(10'000))),
          most_bytes_(store_.capacity() / 256), keys_(store_.capacity() / most_bytes_ * 16) {
        release_retained();  // of the predecessor
    }

    void turn() {
        constexpr std::size_t kMaxHeld = 6;
        while (held_.size() > dice_.between(0, kMaxHeld)) let_go_of_one();
        act(dice_.between(0, 99));
        score_[kTurns].fetch_add(1);
    }
    void close() {
        held_.clear();
        release_retained();
        store_.close();
    }

private:
    struct Held {
        std::uint64_t key;
        StoreObject object;
    };

    void act(std::uint64_t kind) {
        if (kind < 70) return get_or_put(some_key());
        if (kind < 78) return get_batch();
        if (kind < 84) return put_batch();
        if (kind < 90) return remove(some_key());
        if (kind < 96) return give_up(some_key());
        retain_another();
    }

    // Some keys are used far more often than others.
    std::uint64_t some_key() {
        const std::uint64_t among = dice_.between(0, 1) == 0 ? keys_ / 16 : keys_;
        return dice_.between(0, among - 1);
    }
    std::vector<std::uint64_t> some_keys(std::size_t count) {
        std::vector<std::uint64_t> keys(count);
        for (std::uint64_t& key : keys) key = some_key();
        return keys;
    }
    // Most objects are small, most bytes are in large ones.
    std::uint64_t some_size() {
        const std::uint64_t kind = dice_.between(0, 99);
        if (kind < 40) return dice_.between(8, 4096);
        return dice_.between(8, kind < 80 ? most_bytes_ / 8 : most_bytes_);
    }
    static std::string name_of(std::uint64_t key) { return "key-" + std::to_string(key); }
    static std::vector<std::string> names_of(const std::vector<std::uint64_t>& keys) {
        std::vector<std::string> names;
        for (const std::uint64_t key : keys) names.push_back(name_of(key));
        return names;
    }
    std::uint64_t next_number(std::uint64_t key) {
        return (score_[kPutsOf + rank_].fetch_add(1) * kStoreWorkers + rank_) << kKeyBits | key;
    }

    // ---- reading

    void get_or_put(std::uint64_t key) {
        if (!take(key, store_.get(name_of(key)), "get")) put(key);
    }
    void get_batch() {
        const std::vector<std::uint64_t> keys = some_keys(6);
        const std::vector<std::string> names = names_of(keys);
        const std::vector<std::string_view> views(names.begin(), names.end());
        auto objects = store_.get_many(views, dice_.between(0, 1) == 0);
        for (std::size_t at = 0; at < objects.size(); ++at) {
            take(keys[at], std::move(objects[at]), "get_many");
        }
    }
    // False: the key is not there.
    bool take(std::uint64_t key, Result<StoreObject> object, const char* what) {
        if (!object) {
            expect(object.status(), {ErrorCode::NotFound}, what);
            return false;
        }
        check(key, *object);
        score_[kHits].fetch_add(1);
        score_[kBytesRead].fetch_add(object->bytes().size());
        held_.push_back({key, *std::move(object)});
        return true;
    }
    static void check(std::uint64_t key, const StoreObject& object) {
        const std::uint64_t number = number_of(object.bytes());
        const std::string name = name_of(key);
        if ((number & kKeyMask) != key) {
            break_promise(name + " has what was put as " + name_of(number & kKeyMask));
        }
        promise_whole(object.bytes(), number);
        const std::string_view meta(reinterpret_cast<const char*>(object.meta().data()),
                                    object.meta().size());
        if (!meta.empty() && meta != name) break_promise(text_of(name, " says of itself ", meta));
    }
    void let_go_of_one() {
        const auto at =
            held_.begin() + static_cast<std::ptrdiff_t>(dice_.between(0, held_.size() - 1));
        check(at->key, at->object);
        held_.erase(at);
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
        if (address % options.alignment != 0) break_promise(name + " is not aligned");
        if (dice_.between(0, 9) == 0) {
            expect(reservation->resize(some_size()), {ErrorCode::NoSpace}, "resize");
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
        const std::vector<std::uint64_t> keys = some_keys(4);
        const std::vector<std::string> names = names_of(keys);
        std::vector<StoreRequest> requests;
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
        expect(store_.remove(name_of(key)), {ErrorCode::NotFound}, "remove");
    }

    // ---- retaining

    [[nodiscard]] std::string retained_name() {
        return text_of("retained-", rank_, "-", score_[kRetainedOf + rank_]);
    }
    // A retained object that no other worker touches is there until its release, under any
    // pressure.
    void retain_another() {
        release_retained();
        const std::uint64_t number = score_[kRetainedOf + rank_].fetch_add(1) + 1;
        std::vector<std::byte> bytes(most_bytes_ / 4);
        fill_numbered(bytes, number);
        expect(store_.put(retained_name(), bytes), {}, "put");
        is_retained_ = store_.retain(retained_name()).is_ok();  // unless it was evicted already
    }
    void release_retained() {
        const Result<StoreObject> object = store_.get(retained_name());
        if (object) promise_whole(object->bytes(), score_[kRetainedOf + rank_]);
        if (is_retained_ && !object) break_promise(retained_name() + " is gone, and was retained");
        static_cast<void>(store_.release(retained_name()));
        is_retained_ = false;
    }

    // ---- answers

    // The key is taken or staged by another. There is always memory: little of it is in use.
    static void expect_taken(const Status& status) {
        expect(status, {ErrorCode::AlreadyExists, ErrorCode::Busy}, "reserve");
    }
    static void expect(const Status& status, std::initializer_list<ErrorCode> others,
                       const char* what) {
        if (status || std::ranges::find(others, status.code()) != others.end()) return;
        break_promise(text_of(what, ": ", to_string(status.code()), ": ", status.message()));
    }

    SharedWords score_;
    std::uint64_t rank_;
    Dice dice_;
    Store store_;
    std::uint64_t most_bytes_;
    std::uint64_t keys_;
    std::deque<Held> held_;
    bool is_retained_ = false;
};

}  // namespace penstock::trust
