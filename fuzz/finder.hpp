// All calls on a file that seems to be a segment: inspect it, attach, use its contents, create over
// it, remove it. Errors are allowed, and no other harm.
#pragma once

#include <cstddef>
#include <cstring>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "fuzz/calls.hpp"
#include "fuzz/segment_image.hpp"
#include "penstock/broadcast.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"

namespace penstock::fuzzing {

inline std::span<const std::byte> some_bytes(std::size_t size) {
    static const std::vector<std::byte> bytes(100'000);
    return std::span(bytes).first(size);
}

// ---- Broadcast

inline void work_with(BroadcastReader& reader) {
    std::vector<BroadcastMessage> held;
    for (int i = 0; i < 40; ++i) {
        static_cast<void>(reader.next_size(Deadline::now()).is_ok());
        Result<BroadcastMessage> message = reader.recv(Deadline::now());
        if (!message) break;
        touch(message->bytes());
        if (i % 3 == 0) message->keep();
        if (i % 2 == 0) held.push_back(std::move(*message));
    }
    std::byte small[100];
    static_cast<void>(reader.recv_into(small, Deadline::now()).is_ok());
    may_refuse([&] { static_cast<void>(reader.stats()); });
    for (const BroadcastMessage& message : held) touch(message.bytes());
}

inline void find_broadcast(const std::string& name) {
    may_refuse([&] {
        for (const BroadcastReaderState& reader : inspect_broadcast(name).readers) {
            static_cast<void>(reader.describe());
        }
    });
    for (const unsigned rank : {0U, 1U}) {
        may_refuse([&] {
            BroadcastReader reader = BroadcastReader::attach(name, rank);
            work_with(reader);
        });
    }
    may_refuse([&] {
        BroadcastWriter writer =
            BroadcastWriter::create(name, {.readers = 1, .capacity = 4096, .large = 65536});
        static_cast<void>(writer.send(some_bytes(100), Deadline::now()).is_ok());
    });
}

// ---- Store

inline void read_all(Store& store, std::vector<StoreObject>& held) {
    for (const char* key : {"a", "b", "c", "d"}) {
        Result<StoreObject> object = store.get(key);
        static_cast<void>(store.look(key));
        static_cast<void>(store.touch(key));
        if (!object) continue;
        touch(object->bytes());
        touch(object->meta());
        static_cast<void>(store.get(object->ref()).is_ok());
        held.push_back(*std::move(object));
    }
    may_refuse([&] { static_cast<void>(store.keys()); });
    may_refuse([&] { static_cast<void>(store.stats()); });
}

inline void work_with(Store& store) {
    std::vector<StoreObject> held;
    read_all(store, held);
    if (Result<StoreReservation> room = store.reserve("e", 3000)) {
        std::memset(room->bytes().data(), 1, room->bytes().size());
        static_cast<void>(room->resize(6000).is_ok());
        std::memset(room->bytes().data(), 2, room->bytes().size());
        std::optional<StoreObject> pinned;
        static_cast<void>(room->commit(pinned).is_ok());
    }
    static_cast<void>(store.remove("b").is_ok());
    static_cast<void>(store.release("b").is_ok());
    store.reap_dead();
    held.clear();
    static_cast<void>(store.put("f", some_bytes(40'000)).is_ok());
    static_cast<void>(store.put("g", some_bytes(40'000)).is_ok());
    read_all(store, held);
    static_cast<void>(store.clear());
    static_cast<void>(store.trim());
}

inline void find_store(const std::string& name) {
    may_refuse([&] { static_cast<void>(inspect_store(name)); });
    may_refuse([&] {
        Store store = Store::attach(name);
        work_with(store);
        may_refuse([&] { static_cast<void>(inspect_store(name)); });
    });
    may_refuse([&] {
        Store store = Store::create(name, {.capacity = 65536, .objects = 4, .participants = 2});
        static_cast<void>(store.put("a", some_bytes(100)).is_ok());
    });
}

// ---- Queue

inline void work_with(Queue& queue) {
    std::vector<Delivery> held;
    static_cast<void>(queue.is_ready());
    static_cast<void>(queue.has_room());
    for (int i = 0; i < 12; ++i) {
        Result<Delivery> delivery = queue.take(Deadline::now());
        if (!delivery) break;
        touch(delivery->bytes());
        if (i % 4 == 0)
            delivery->nack();
        else if (i % 4 == 1)
            delivery->ack();
        else
            held.push_back(std::move(*delivery));
    }
    for (const std::size_t size : {std::size_t{30}, std::size_t{9000}, std::size_t{40'000}}) {
        static_cast<void>(queue.put(some_bytes(size), Deadline::now()).is_ok());
    }
    if (Result<QueueLoan> loan = queue.loan(5000, Deadline::now())) {
        std::memset(loan->bytes().data(), 1, loan->bytes().size());
        static_cast<void>(loan->commit(Format::Bytes, Deadline::now()).is_ok());
    }
    std::byte small[100];
    static_cast<void>(queue.get(small, Deadline::now()).is_ok());
    may_refuse([&] { static_cast<void>(queue.stats()); });
    for (const Delivery& delivery : held) touch(delivery.bytes());
}

inline void find_queue(const std::string& name) {
    may_refuse([&] { static_cast<void>(inspect_queue(name)); });
    may_refuse([&] {
        Queue consumer = Queue::attach(name, QueueRole::Consumer);
        static_cast<void>(consumer.take(Deadline::now()).is_ok());
        Queue queue = Queue::attach(name);
        work_with(queue);
        static_cast<void>(consumer.discard());
    });
    may_refuse([&] {
        Queue queue = Queue::create(name, {.capacity = 65536, .slots = 4, .participants = 2});
        static_cast<void>(queue.put(some_bytes(100), Deadline::now()).is_ok());
    });
}

// ---- a queue of trajectories

inline void work_with(TrajectoryReader& reader) {
    for (const bool is_shifted : {false, true}) {
        Result<TrajectoryBatch> batch =
            reader.next_batch({.causal_shift = is_shifted}, Deadline::now());
        if (!batch) continue;
        for (std::size_t at = 0; at < batch->groups(); ++at) touch(batch->message(at));
        std::vector<double> scores(batch->lengths().size());
        static_cast<void>(batch->fill_scores(scores).is_ok());
        if (is_shifted) batch->ack(1);
    }
    static_cast<void>(reader.is_ready());
    static_cast<void>(reader.held_messages());
    may_refuse([&] { static_cast<void>(reader.stats()); });
}

inline void work_with(TrajectoryWriter& writer) {
    static_cast<void>(writer.credit());
    Result<Rollout> rollout = writer.begin(Deadline::now());
    put_group(writer, rollout ? &*rollout : nullptr);
    put_group(writer, nullptr);
    may_refuse([&] { static_cast<void>(writer.stats()); });
}

inline void find_trajectories(const std::string& name) {
    may_refuse([&] { static_cast<void>(inspect_trajectories(name)); });
    may_refuse([&] {
        TrajectoryReader reader = TrajectoryReader::attach(name, 4);
        work_with(reader);
        TrajectoryWriter writer =
            TrajectoryWriter::attach(name, {.name = "maths", .min_share = 0.2});
        work_with(writer);
        work_with(reader);
    });
    may_refuse([&] {
        TrajectoryReader reader = TrajectoryReader::create(
            name, {.capacity = 65536, .slots = 4, .participants = 2, .max_staleness = 1}, 4);
        work_with(reader);
    });
}

}  // namespace penstock::fuzzing
