// A process that does what it is told with a Store. Objects are numbered: key and contents follow
// from the number and the size, and whatever it reads it checks byte by byte before it answers.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "os/crash_point.hpp"
#include "penstock/store.hpp"
#include "tests/support/actor_role.hpp"
#include "tests/support/answers.hpp"
#include "tests/support/numbered.hpp"
#include "tests/support/talk.hpp"

namespace penstock::trust {

inline constexpr const char* kStoreRole = "store-actor";

inline std::string store_key(const std::string& number) {
    return "key-" + number;
}

class StoreActor : public ActorRole<StoreActor> {
private:
    friend class ActorRole<StoreActor>;

    // create NAME BYTES OBJECTS MEMBERS EVICTION
    Answer create(const Words& words) {
        forget();
        StoreOptions options;
        options.capacity = std::stoull(words.at(2));
        options.objects = std::stoull(words.at(3));
        options.participants = static_cast<unsigned>(std::stoul(words.at(4)));
        for (const Eviction one :
             {Eviction::Sieve, Eviction::Fifo, Eviction::Lru, Eviction::None}) {
            if (to_string(one) == words.at(5)) options.eviction = one;
        }
        store_.emplace(Store::create(words.at(1), options));
        return ok();
    }
    // attach NAME MS
    Answer attach(const Words& words) {
        forget();
        store_.emplace(Store::attach(words.at(1), wait_of(words.at(2))));
        return ok();
    }

    // reserve NUMBER BYTES: and holds it, written to.
    Answer reserve(const Words& words) {
        Result<StoreReservation> got =
            store_.value().reserve(store_key(words.at(1)), std::stoull(words.at(2)));
        if (!got) return failure_of(got.status());
        fill_numbered(got->bytes(), std::stoull(words.at(1)));
        reserved_.emplace(words.at(1), *std::move(got));
        return ok();
    }
    Answer commit(const Words& words) {
        const Status status = reserved_.at(words.at(1)).commit();
        reserved_.erase(words.at(1));
        return status ? ok() : failure_of(status);
    }
    Answer abort(const Words& words) {
        reserved_.at(words.at(1)).abort();
        reserved_.erase(words.at(1));
        return ok();
    }
    // resize NUMBER BYTES
    Answer resize(const Words& words) {
        StoreReservation& reservation = reserved_.at(words.at(1));
        const Status status = reservation.resize(std::stoull(words.at(2)));
        if (!status) return failure_of(status);
        fill_numbered(reservation.bytes(), std::stoull(words.at(1)));
        return ok();
    }
    // put NUMBER BYTES
    Answer put(const Words& words) {
        Answer answer = reserve(words);
        return answer.is_ok() ? commit(words) : answer;
    }
    // fill FIRST COUNT BYTES: so many puts.
    Answer fill(const Words& words) {
        const std::uint64_t first = std::stoull(words.at(1));
        for (std::uint64_t i = 0; i < std::stoull(words.at(2)); ++i) {
            const Answer answer = put({"put", std::to_string(first + i), words.at(3)});
            if (!answer.is_ok()) return answer;
        }
        return ok();
    }
    // room BYTES: reserved, written to at both ends, and let go.
    Answer room(const Words& words) {
        Result<StoreReservation> got = store_.value().reserve(
            "room of " + std::to_string(::getpid()), std::stoull(words.at(1)));
        if (!got) return failure_of(got.status());
        got->bytes().front() = got->bytes().back() = std::byte{1};
        return ok();
    }

    // get NUMBER: and holds it.
    Answer get(const Words& words) {
        return held(words, store_.value().get(store_key(words.at(1))));
    }
    // wait NUMBER MS: the same.
    Answer wait(const Words& words) {
        return held(words, store_.value().wait(store_key(words.at(1)), wait_of(words.at(2))));
    }
    // read NUMBER: get, and let it go.
    Answer read(const Words& words) {
        Result<StoreObject> object = store_.value().get(store_key(words.at(1)));
        return object ? checked(words.at(1), *object) : failure_of(object.status());
    }
    // recheck NUMBER: what is held is as it was.
    Answer recheck(const Words& words) { return checked(words.at(1), held_.at(words.at(1))); }
    Answer release(const Words& words) {
        held_.at(words.at(1)).release();
        held_.erase(words.at(1));
        return ok();
    }

    Answer remove(const Words& words) {
        return told(store_.value().remove(store_key(words.at(1))));
    }
    Answer retain(const Words& words) {
        return told(store_.value().retain(store_key(words.at(1))));
    }
    Answer unretain(const Words& words) {
        return told(store_.value().release(store_key(words.at(1))));
    }
    Answer touch(const Words& words) {
        return store_.value().touch(store_key(words.at(1))) ? ok() : Answer{"NotFound", {}, {}};
    }
    Answer clear(const Words&) { return ok().with("removed", store_.value().clear()); }
    Answer trim(const Words&) { return ok().with("bytes", store_.value().trim()); }
    Answer persist(const Words&) { return told(store_.value().persist()); }
    Answer reap_dead(const Words&) {
        store_.value().reap_dead();
        return ok();
    }
    Answer look(const Words& words) {
        const StoreLook look = store_.value().look(store_key(words.at(1)));
        constexpr const char* kStates[] = {"miss", "hit", "staged"};
        return ok()
            .with("state", std::string(kStates[static_cast<std::size_t>(look.state)]))
            .with("peer", look.staged_by);
    }
    // Every object that is there: how many, their bytes with their keys, and what they take.
    Answer sum(const Words&) {
        std::uint64_t bytes = 0;
        std::uint64_t taken = 0;
        const std::vector<std::string> keys = store_.value().keys();
        for (const std::string& key : keys) {
            const Result<StoreObject> object = store_->get(key);
            if (!object) return failure_of(object.status());
            bytes += key.size() + object->bytes().size();
            taken += 64 + (object->bytes().size() + 63) / 64 * 64;
        }
        return ok().with("objects", keys.size()).with("bytes", bytes).with("taken", taken);
    }
    Answer close(const Words&) {
        forget();
        return ok();
    }

    void forget() {
        reserved_.clear();
        held_.clear();
        store_.reset();
    }
    static Answer told(const Status& status) { return status ? ok() : failure_of(status); }
    static Answer checked(const std::string& number, const StoreObject& object) {
        const std::string wrong = check_numbered(object.bytes(), std::stoull(number));
        if (!wrong.empty()) return {"Torn", {}, wrong};
        return ok().with("bytes", object.bytes().size());
    }
    Answer held(const Words& words, Result<StoreObject> object) {
        if (!object) return failure_of(object.status());
        Answer answer = checked(words.at(1), *object);
        held_.emplace(words.at(1), *std::move(object));
        return answer;
    }

    static const std::vector<Command> kCommands;

    std::optional<Store> store_;
    std::map<std::string, StoreReservation> reserved_;
    std::map<std::string, StoreObject> held_;
};

inline const std::vector<StoreActor::Command> StoreActor::kCommands = {
    {"arm", &StoreActor::arm},         {"trace", &StoreActor::trace},
    {"traced", &StoreActor::traced},   {"create", &StoreActor::create},
    {"attach", &StoreActor::attach},   {"reserve", &StoreActor::reserve},
    {"commit", &StoreActor::commit},   {"abort", &StoreActor::abort},
    {"resize", &StoreActor::resize},   {"put", &StoreActor::put},
    {"fill", &StoreActor::fill},       {"room", &StoreActor::room},
    {"get", &StoreActor::get},         {"wait", &StoreActor::wait},
    {"read", &StoreActor::read},       {"recheck", &StoreActor::recheck},
    {"release", &StoreActor::release}, {"remove", &StoreActor::remove},
    {"pin", &StoreActor::retain},      {"unpin", &StoreActor::unretain},
    {"touch", &StoreActor::touch},     {"clear", &StoreActor::clear},
    {"trim", &StoreActor::trim},       {"clear-dead", &StoreActor::reap_dead},
    {"look", &StoreActor::look},       {"sum", &StoreActor::sum},
    {"close", &StoreActor::close},     {"depart", &StoreActor::depart},
    {"persist", &StoreActor::persist},
};

// store-actor
inline int play_store_actor(const Words&) {
    StoreActor actor;
    return listen([&actor](const Words& words) { return actor.obey(words); });
}

}  // namespace penstock::trust
