// A process that obeys commands with a Store. Objects are numbered: key and contents follow from
// number and size; each object read is checked byte by byte before the answer.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "penstock/store.hpp"
#include "tests/support/actor_program.hpp"
#include "tests/support/numbered.hpp"

namespace penstock::trust {

inline constexpr const char* kStoreRole = "store-actor";

// Heap bytes of an object: its key, in 64, and its data.
constexpr std::uint64_t taken_by(std::uint64_t bytes) {
    return 64 + (bytes + 63) / 64 * 64;
}

class StoreActor : public ActorProgram {
public:
    StoreActor() {
        on("create", [this](const std::string& name, std::uint64_t bytes, std::uint64_t objects,
                            unsigned participants, const std::string& eviction) {
            forget();
            StoreOptions options;
            options.capacity = bytes;
            options.objects = objects;
            options.participants = participants;
            for (const Eviction one :
                 {Eviction::Sieve, Eviction::Fifo, Eviction::Lru, Eviction::None}) {
                if (to_string(one) == eviction) options.eviction = one;
            }
            store_.emplace(Store::create(name, options));
        });
        on("attach", [this](const std::string& name, const Wait& wait) {
            forget();
            store_.emplace(Store::attach(name, wait));
        });
        on("close", [this] { forget(); });
        // NUMBER of an object.
        on("touch", [this](Number number) {
            return store().touch(key(number)) ? Status::ok()
                                              : Status(ErrorCode::NotFound, "nothing to touch");
        });
        on("retain", [this](Number number) { return store().retain(key(number)); });
        on("unretain", [this](Number number) { return store().release(key(number)); });
        on("remove", [this](Number number) { return store().remove(key(number)); });
        on("look", [this](Number number) {
            const StoreLook look = store().look(key(number));
            constexpr const char* kStates[] = {"miss", "hit", "staged"};
            return ok()
                .with("state", std::string(kStates[static_cast<std::size_t>(look.state)]))
                .with("peer", look.staged_by);
        });
        // Over all objects: their count, their bytes with keys, and the memory they take.
        on("sum", [this] { return sum(); });
        on("clear", [this] { return ok().with("removed", store().clear()); });
        on("trim", [this] { return ok().with("bytes", store().trim()); });
        on("persist", [this] { return store().persist(); });
        on("clear-dead", [this] { store().reap_dead(); });
        writing();
        reading();
    }

private:
    using Number = std::uint64_t;

    void writing() {
        // Writes to it, and holds it.
        on("reserve",
           [this](Number number, std::uint64_t bytes) { return reserve(number, bytes); });
        on("commit", [this](Number number) { return commit(number); });
        on("abort", [this](Number number) {
            reserved_.at(number).abort();
            reserved_.erase(number);
        });
        on("resize", [this](Number number, std::uint64_t bytes) {
            const Status status = reserved_.at(number).resize(bytes);
            if (status) fill_numbered(reserved_.at(number).bytes(), number);
            return status;
        });
        on("put", [this](Number number, std::uint64_t bytes) { return put(number, bytes); });
        // `count` puts.
        on("fill", [this](Number first, std::uint64_t count, std::uint64_t bytes) {
            Status status;
            for (Number i = first; status && i < first + count; ++i) status = put(i, bytes);
            return status;
        });
        // Reserves, writes to both ends, and aborts.
        on("room", [this](std::uint64_t bytes) {
            auto got = store().reserve("room of " + std::to_string(::getpid()), bytes);
            if (got) got->bytes().front() = got->bytes().back() = std::byte{1};
            return got.status();
        });
    }
    void reading() {
        // get, wait: hold the object.
        on("get", [this](Number number) { return held(number, store().get(key(number))); });
        on("wait", [this](Number number, const Wait& wait) {
            return held(number, store().wait(key(number), wait));
        });
        on("read", [this](Number number) {
            const Result<StoreObject> object = store().get(key(number));
            return object ? checked(number, *object) : failure_of(object.status());
        });
        // The held object is unchanged.
        on("recheck", [this](Number number) { return checked(number, held_.at(number)); });
        on("release", [this](Number number) {
            held_.at(number).release();
            held_.erase(number);
        });
    }

    Status reserve(Number number, std::uint64_t bytes) {
        Result<StoreReservation> got = store().reserve(key(number), bytes);
        if (!got) return got.status();
        fill_numbered(got->bytes(), number);
        reserved_.emplace(number, *std::move(got));
        return {};
    }
    Status commit(Number number) {
        const Status status = reserved_.at(number).commit();
        reserved_.erase(number);
        return status;
    }
    Status put(Number number, std::uint64_t bytes) {
        const Status status = reserve(number, bytes);
        return status ? commit(number) : status;
    }
    static Answer checked(Number number, const StoreObject& object) {
        return intact(check_numbered(object.bytes(), number)).with("bytes", object.bytes().size());
    }
    Answer held(Number number, Result<StoreObject> object) {
        if (!object) return failure_of(object.status());
        const Answer answer = checked(number, *object);
        held_.emplace(number, *std::move(object));
        return answer;
    }
    Answer sum() {
        std::uint64_t bytes = 0;
        std::uint64_t taken = 0;
        const std::vector<std::string> keys = store().keys();
        for (const std::string& key : keys) {
            const Result<StoreObject> object = store().get(key);
            if (!object) return failure_of(object.status());
            bytes += key.size() + object->bytes().size();
            taken += taken_by(object->bytes().size());
        }
        return ok().with("objects", keys.size()).with("bytes", bytes).with("taken", taken);
    }
    static std::string key(Number number) { return "key-" + std::to_string(number); }
    Store& store() { return store_.value(); }
    void forget() {
        reserved_.clear();
        held_.clear();
        store_.reset();
    }

    std::optional<Store> store_;
    std::map<Number, StoreReservation> reserved_;
    std::map<Number, StoreObject> held_;
};

inline int play_store_actor(const Words&) {
    return StoreActor().run();
}

}  // namespace penstock::trust
