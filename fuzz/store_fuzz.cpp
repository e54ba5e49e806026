// A live Store whose control block, entries, heap words and payload are overwritten while two
// participants work: reservations, pins, removals, evictions, inspections, departures. Errors are
// allowed, and no other harm.
#include <array>
#include <optional>

#include "fuzz/calls.hpp"
#include "fuzz/playground.hpp"
#include "fuzz/strike.hpp"
#include "penstock/store.hpp"

namespace penstock::fuzzing {
namespace {

// A store and its corruptor, made once: making them takes longer than all calls of a run. Between
// two calls a handle keeps only its pins and reservations.
struct Ground {
    explicit Ground(Eviction eviction)
        : path(path_of(std::string(to_string(eviction)))), name("file:" + path),
          store(Store::create(name, {.capacity = 65536,
                                     .objects = 4,
                                     .participants = 3,
                                     .eviction = eviction,
                                     .granule = 1024})),
          corruptor(name) {}

    std::string path;
    std::string name;
    Store store;
    SegmentCorruptor corruptor;
};

// The store as it was made.
Ground& fresh_ground(std::size_t which) {
    static auto* const grounds = new std::array{Ground(Eviction::Sieve), Ground(Eviction::Fifo),
                                                Ground(Eviction::Lru), Ground(Eviction::None)};
    Ground& ground = (*grounds)[which % grounds->size()];
    ground.corruptor.undo();
    return ground;
}

// Two participants in one process, with the order of calls from the input.
class Town {
public:
    explicit Town(FuzzedDataProvider& input)
        : input_(input), ground_(fresh_ground(input.ConsumeIntegral<std::uint8_t>())),
          store_(ground_.store), corruptor_(ground_.corruptor) {}

    void live() {
        for (int i = 0; i < 60 && input_.remaining_bytes() > 0; ++i) step();
    }

private:
    void step() {
        Store& who = other_ && input_.ConsumeBool() ? *other_ : store_;
        const std::string key = key_of();
        switch (input_.ConsumeIntegralInRange<int>(0, 12)) {
            case 0:
            case 1:
                strike(corruptor_, input_);
                break;
            case 2:
            case 3:
                put(who, key, input_.ConsumeIntegralInRange<std::size_t>(0, 3000));
                break;
            case 4:
                put(who, key, input_.ConsumeIntegralInRange<std::size_t>(0, 70'000));
                break;
            case 5:
                reserve(who, key);
                break;
            case 6:
            case 7:
                get(who, key);
                break;
            case 8:
                static_cast<void>(who.remove(key).is_ok());
                break;
            case 9:
                let_go();
                break;
            case 10:
                keep_or_clear(who, key);
                break;
            case 11:
                look(who, key);
                break;
            default:
                // A hundred times as expensive as other calls, and covered by attach_fuzz.
                if (input_.ConsumeIntegralInRange<int>(0, 7) == 0) come_or_look_in();
                break;
        }
    }
    std::string key_of() {
        return std::string(1, static_cast<char>('a' + input_.ConsumeIntegral<char>() % 6));
    }

    static void put(Store& store, const std::string& key, std::size_t size) {
        static const std::vector<std::byte> bytes(70'000);
        ReserveOptions options;
        options.meta = std::span(bytes).first(size % 100);
        static_cast<void>(store.put(key, std::span(bytes).first(size), options).is_ok());
    }
    void reserve(Store& store, const std::string& key) {
        Result<StoreReservation> room =
            store.reserve(key, input_.ConsumeIntegralInRange<std::size_t>(0, 40'000));
        if (!room) return;
        std::memset(room->bytes().data(), 1, room->bytes().size());
        if (input_.ConsumeBool()) strike(corruptor_, input_);
        if (input_.ConsumeBool()) {
            static_cast<void>(
                room->resize(input_.ConsumeIntegralInRange<std::size_t>(0, 70'000)).is_ok());
            std::memset(room->bytes().data(), 2, room->bytes().size());
        }
        if (input_.ConsumeBool()) {
            static_cast<void>(room->commit().is_ok());
        } else if (input_.ConsumeBool()) {
            rooms_.push_back(*std::move(room));
        }
    }
    void get(Store& store, const std::string& key) {
        Result<StoreObject> object = store.get(key);
        if (!object) return;
        touch(object->bytes());
        touch(object->meta());
        static_cast<void>(store.get(object->ref()).is_ok());
        if (input_.ConsumeBool()) held_.push_back(*std::move(object));
    }
    void let_go() {
        if (!held_.empty()) held_.erase(held_.begin());
        if (!rooms_.empty()) rooms_.erase(rooms_.begin());
    }
    void keep_or_clear(Store& store, const std::string& key) {
        switch (input_.ConsumeIntegralInRange<int>(0, 4)) {
            case 0:
                static_cast<void>(store.retain(key).is_ok());
                break;
            case 1:
                static_cast<void>(store.release(key).is_ok());
                break;
            case 2:
                static_cast<void>(store.trim());
                break;
            case 3:
                store.reap_dead();
                break;
            default:
                static_cast<void>(store.clear());
                break;
        }
    }
    void come_or_look_in() {
        if (input_.ConsumeBool()) {
            may_refuse([&] { static_cast<void>(inspect_store(ground_.name)); });
        } else if (other_) {
            other_.reset();
        } else {
            may_refuse([&] { other_.emplace(Store::attach(ground_.name)); });
        }
    }
    void look(Store& store, const std::string& key) {
        may_refuse([&] { static_cast<void>(store.stats()); });
        may_refuse([&] { static_cast<void>(store.keys()); });
        static_cast<void>(store.look(key));
        static_cast<void>(store.touch(key));
        for (const StoreObject& object : held_) touch(object.bytes());
    }

    FuzzedDataProvider& input_;
    Ground& ground_;
    Store& store_;
    SegmentCorruptor& corruptor_;
    std::optional<Store> other_;
    std::vector<StoreObject> held_;
    std::vector<StoreReservation> rooms_;
};

}  // namespace
}  // namespace penstock::fuzzing

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    FuzzedDataProvider input(data, size);
    penstock::fuzzing::Town(input).live();
    return 0;
}
