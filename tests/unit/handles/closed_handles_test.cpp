// Every public method on a closed and on a moved-from handle: calls that can fail report Closed by
// Self, the others do nothing, and close() forgets no name.
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "penstock/broadcast.hpp"
#include "penstock/queue.hpp"
#include "penstock/store.hpp"
#include "penstock/trajectories.hpp"
#include "tests/unit/trajectories/trajectory_fixture.hpp"

// Moved-from handles are used on purpose.
// NOLINTBEGIN(bugprone-use-after-move)

namespace penstock {
namespace {

using namespace std::chrono_literals;

// One call on a handle: its name and its status.
struct Row {
    const char* call;
    std::function<Status()> run;
};

template <typename T>
Status said(const Result<T>& result) {
    return result.is_ok() ? Status::ok() : result.status();
}

// The same for calls that throw.
template <typename Call>
std::function<Status()> thrown(Call call) {
    return [call] {
        try {
            call();
        } catch (const Error& error) {
            return error.closed_by() == ClosedBy::Self
                       ? Status::closed_here(error.what())
                       : Status(error.code(), error.what(), error.peer());
        }
        return Status::ok();
    };
}

// A call that can't fail: its result must be empty or false.
template <typename Call>
std::function<Status()> quiet(Call call) {
    return [call] {
        return call() ? Status::closed_here("") : Status(ErrorCode::System, "does something");
    };
}

void expect_closed(const char* handle, const std::vector<Row>& rows) {
    for (const Row& row : rows) {
        const Status status = row.run();
        EXPECT_EQ(status.code(), ErrorCode::Closed)
            << handle << "::" << row.call << ": " << status.message();
        EXPECT_EQ(status.closed_by(), ClosedBy::Self) << handle << "::" << row.call;
        EXPECT_EQ(status.closed_by(), ClosedBy::Self);
    }
}

class ClosedHandlesTest : public test::CleanTest {
protected:
    const std::vector<std::byte> bytes_ = std::vector<std::byte>(8);
    std::string name_ = new_name();
    const Wait soon_ = Wait(1ms);

    std::vector<Row> calls(BroadcastWriter& writer) const {
        return {{"send", [&] { return writer.send(bytes_, soon_); }},
                {"send large", [&] { return writer.send(std::vector<std::byte>(100'000), soon_); }},
                {"loan", [&] { return said(writer.loan(8, soon_)); }},
                {"has_room", quiet([&] { return writer.has_room(8); })},  // it fails at once
                {"wait_ready", [&] { return writer.wait_ready(soon_); }},
                {"blocked_by", thrown([&] { static_cast<void>(writer.blocked_by()); })},
                {"readers", thrown([&] { static_cast<void>(writer.readers()); })},
                {"stats", thrown([&] { static_cast<void>(writer.stats()); })},
                {"request_close", quiet([&] { return writer.request_close(), true; })},
                {"close", quiet([&] { return writer.close(), true; })},
                {"is_open", quiet([&] { return !writer.is_open(); })},
                {"descriptor", quiet([&] { return writer.descriptor() == -1; })}};
    }
    std::vector<Row> calls(BroadcastReader& reader) const {
        return {{"recv", [&] { return said(reader.recv(soon_)); }},
                {"recv_into", [&] { return said(reader.recv_into({}, soon_)); }},
                {"next_size", [&] { return said(reader.next_size(soon_)); }},
                {"stats", thrown([&] { static_cast<void>(reader.stats()); })},
                {"is_ready", quiet([&] { return !reader.is_ready(); })},
                {"request_close", quiet([&] { return reader.request_close(), true; })},
                {"close", quiet([&] { return reader.close(), true; })},
                {"is_open", quiet([&] { return !reader.is_open(); })},
                {"descriptor", quiet([&] { return reader.descriptor() == -1; })}};
    }
    std::vector<Row> calls(Queue& queue) const {
        return {{"put", [&] { return queue.put(bytes_, soon_); }},
                {"put_many", [&] { return said(queue.put_many({}, soon_)); }},
                {"loan", [&] { return said(queue.loan(8, soon_)); }},
                {"take", [&] { return said(queue.take(soon_)); }},
                {"take_many",
                 [&] {
                     std::vector<Delivery> none;
                     return queue.take_many(none, 0, soon_);
                 }},
                {"take_for_batch", [&] { return said(queue.take_for_batch(soon_)); }},
                {"get", [&] { return said(queue.get({}, soon_)); }},
                {"dead_letters", [&] { return said(queue.dead_letters()); }},
                {"copy_dead_letter", [&] { return said(queue.copy_dead_letter(0)); }},
                {"requeue_dead_letters", [&] { return said(queue.requeue_dead_letters()); }},
                {"drop_dead_letters", [&] { return said(queue.drop_dead_letters()); }},
                {"wait_ready", [&] { return queue.wait_ready(soon_); }},
                {"wait_room", [&] { return queue.wait_room(8, soon_); }},
                {"queued", thrown([&] { static_cast<void>(queue.queued()); })},
                {"stats", thrown([&] { static_cast<void>(queue.stats()); })},
                {"is_ready", quiet([&] { return !queue.is_ready(); })},
                {"has_room", quiet([&] { return !queue.has_room(); })},
                {"discard", quiet([&] { return queue.discard() == 0; })},
                {"end", quiet([&] { return queue.end(), true; })},
                {"request_close", quiet([&] { return queue.request_close(), true; })},
                {"close", quiet([&] { return queue.close(), true; })},
                {"is_open", quiet([&] { return !queue.is_open(); })}};
    }
    std::vector<Row> calls(Store& store) const {
        return {{"reserve", [&] { return said(store.reserve("k", 8)); }},
                {"put", [&] { return store.put("k", bytes_); }},
                {"get", [&] { return said(store.get("k")); }},
                {"get ref", [&] { return said(store.get(StoreRef{})); }},
                {"wait", [&] { return said(store.wait("k", soon_)); }},
                {"remove", [&] { return store.remove("k"); }},
                {"retain", [&] { return store.retain("k"); }},
                {"release", [&] { return store.release("k"); }},
                {"reserve_many",
                 [&] {
                     const StoreRequest request{"k", 8};
                     return said(store.reserve_many({&request, 1}).at(0));
                 }},
                {"get_many",
                 [&] {
                     const std::string_view key = "k";
                     return said(store.get_many({&key, 1}).at(0));
                 }},
                {"register_cuda", thrown([&] { store.register_cuda(); })},
                {"keys", thrown([&] { static_cast<void>(store.keys()); })},
                {"stats", thrown([&] { static_cast<void>(store.stats()); })},
                {"contains", quiet([&] { return !store.contains("k"); })},
                {"look", quiet([&] { return store.look("k").state == StoreLook::State::Miss; })},
                {"touch", quiet([&] { return !store.touch("k"); })},
                {"clear", quiet([&] { return store.clear() == 0; })},
                {"trim", quiet([&] { return store.trim() == 0; })},
                {"populate", [&] { return store.populate(soon_); }},
                {"persist", [&] { return store.persist(); }},
                {"is_persistent", quiet([&] { return !store.is_persistent(); })},
                {"reap_dead", quiet([&] { return store.reap_dead(), true; })},
                {"capacity", quiet([&] { return store.capacity() == 0; })},
                {"flush", quiet([&] { return store.flush().is_nothing(); })},
                {"finish", quiet([&] { return store.finish().is_nothing(); })},
                {"request_close", quiet([&] { return store.request_close(), true; })},
                {"close", quiet([&] { return store.close().is_nothing(); })},
                {"is_open", quiet([&] { return !store.is_open(); })}};
    }
    std::vector<Row> calls(TrajectoryWriter& writer) const {
        return {{"credit", thrown([&] { static_cast<void>(writer.credit()); })},
                {"begin", [&] { return said(writer.begin(soon_)); }},
                {"loan", [&] { return said(writer.loan(8, soon_)); }},
                {"put", [&] { return writer.put(codec::MessageWriter(), nullptr, soon_); }},
                {"stats", thrown([&] { static_cast<void>(writer.stats()); })},
                {"has_room", quiet([&] { return !writer.has_room(); })},
                {"version", quiet([&] { return writer.version() == 0; })},
                {"end", quiet([&] { return writer.end(), true; })},
                {"request_close", quiet([&] { return writer.request_close(), true; })},
                {"close", quiet([&] { return writer.close(), true; })}};
    }
    std::vector<Row> calls(TrajectoryReader& reader) const {
        return {{"next_batch", [&] { return said(reader.next_batch({}, soon_)); }},
                {"wait_ready", [&] { return reader.wait_ready(soon_); }},
                {"restore", [&] { return reader.restore({}); }},
                {"stats", thrown([&] { static_cast<void>(reader.stats()); })},
                {"is_ready", quiet([&] { return !reader.is_ready(); })},
                {"held_messages", quiet([&] { return reader.held_messages().empty(); })},
                {"raise_version", quiet([&] { return reader.raise_version(7), true; })},
                {"version", quiet([&] { return reader.version() == 0; })},
                {"sequences", quiet([&] { return reader.sequences() == 0; })},
                {"discard", quiet([&] { return reader.discard() == 0; })},
                {"end", quiet([&] { return reader.end(), true; })},
                {"request_close", quiet([&] { return reader.request_close(), true; })},
                {"close", quiet([&] { return reader.close(), true; })}};
    }
    std::vector<Row> calls(TrajectoryBatch& batch) const {
        return {{"dtype", [&] { return said(batch.dtype(Column::Tokens)); }},
                {"width", [&] { return said(batch.width(Column::Tokens)); }},
                {"fill_padded", [&] { return batch.fill_padded(Column::Tokens, {}, 0); }},
                {"fill_packed", [&] { return batch.fill_packed(Column::Tokens, {}); }},
                {"fill_scores", [&] { return batch.fill_scores({}); }},
                {"groups", quiet([&] { return batch.groups() == 0; })},
                {"group", quiet([&] { return batch.group(0).sequences() == 0; })},
                {"message", quiet([&] { return batch.message(0).empty(); })},
                {"deliveries", quiet([&] { return batch.deliveries(0) == 0; })},
                {"sequence", quiet([&] { return batch.sequence(0) == 0; })},
                {"is_restored", quiet([&] { return !batch.is_restored(0); })},
                {"ack", quiet([&] { return batch.ack(1), true; })},
                {"nack", quiet([&] { return batch.nack(), true; })},
                {"untake", quiet([&] { return batch.untake(), true; })},
                {"is_open", quiet([&] { return !batch.is_open(); })}};
    }
};

TEST_F(ClosedHandlesTest, BroadcastWriter) {
    BroadcastWriter writer =
        BroadcastWriter::create(name_, {.readers = 1, .capacity = 4096, .large = 1 << 20U});
    BroadcastWriter moved = std::move(writer);
    expect_closed("BroadcastWriter, moved from,",
                  calls(writer));  // NOLINT(bugprone-use-after-move)
    Result<BroadcastLoan> loan = moved.loan(8);
    ASSERT_TRUE(loan.is_ok());
    BroadcastLoan taken = *std::move(loan);
    EXPECT_EQ(loan->commit().closed_by(), ClosedBy::Self);
    EXPECT_TRUE(loan->bytes().empty());
    EXPECT_EQ(loan->file_offset(), 0U);
    moved.close();
    EXPECT_EQ(taken.commit().closed_by(), ClosedBy::Self);
    expect_closed("BroadcastWriter, closed,", calls(moved));
    EXPECT_EQ(moved.name(), name_);
    EXPECT_FALSE(moved.instance().empty());
}

TEST_F(ClosedHandlesTest, BroadcastReader) {
    BroadcastWriter writer = BroadcastWriter::create(name_, {.readers = 2, .capacity = 4096});
    BroadcastReader reader = BroadcastReader::attach(name_, 1);
    ASSERT_TRUE(writer.send(bytes_));
    BroadcastReader moved = std::move(reader);
    expect_closed("BroadcastReader, moved from,",
                  calls(reader));  // NOLINT(bugprone-use-after-move)
    Result<BroadcastMessage> message = moved.recv();
    ASSERT_TRUE(message.is_ok());
    BroadcastMessage taken = *std::move(message);
    EXPECT_TRUE(message->bytes().empty());
    message->keep();
    message->release();
    EXPECT_EQ(taken.bytes().size(), bytes_.size());
    taken.release();
    taken.release();
    EXPECT_TRUE(taken.bytes().empty()) << "its bytes are another's";
    moved.close();
    expect_closed("BroadcastReader, closed,", calls(moved));
    EXPECT_EQ(moved.name(), name_);
    EXPECT_EQ(moved.instance(), writer.instance());
    EXPECT_EQ(moved.rank(), 1U);
}

TEST_F(ClosedHandlesTest, Queue) {
    Queue queue = Queue::create(name_, {.capacity = 1 << 16U, .slots = 4});
    ASSERT_TRUE(queue.put(bytes_));
    Queue moved = std::move(queue);
    expect_closed("Queue, moved from,", calls(queue));  // NOLINT(bugprone-use-after-move)
    Result<Delivery> delivery = moved.take();
    ASSERT_TRUE(delivery.is_ok());
    Delivery taken = *std::move(delivery);
    EXPECT_TRUE(delivery->bytes().empty());
    delivery->settle();
    delivery->ack();
    delivery->nack();
    delivery->untake();
    delivery->dead_letter();
    delivery->note_alone();
    EXPECT_FALSE(delivery->must_come_alone());
    taken.ack();
    Result<QueueLoan> loan = moved.loan(1000);
    ASSERT_TRUE(loan.is_ok());
    QueueLoan filled = *std::move(loan);
    EXPECT_EQ(loan->commit().closed_by(), ClosedBy::Self);
    EXPECT_TRUE(loan->bytes().empty());
    EXPECT_FALSE(loan->is_open());
    ASSERT_TRUE(filled.commit());
    EXPECT_EQ(filled.commit().closed_by(), ClosedBy::Self);
    EXPECT_EQ(moved.discard(), 1U);
    const std::string instance = moved.instance();
    moved.close();
    expect_closed("Queue, closed,", calls(moved));
    EXPECT_EQ(moved.name(), name_);
    EXPECT_EQ(moved.instance(), instance);
}

TEST_F(ClosedHandlesTest, Store) {
    Store store = Store::create(name_);
    Store moved = std::move(store);
    expect_closed("Store, moved from,", calls(store));  // NOLINT(bugprone-use-after-move)
    Result<StoreReservation> reservation = moved.reserve("k", 8);
    ASSERT_TRUE(reservation.is_ok());
    StoreReservation staged = *std::move(reservation);
    EXPECT_EQ(reservation->commit().code(), ErrorCode::Expired) << "a reservation that is over";
    EXPECT_EQ(reservation->resize(4).code(), ErrorCode::Expired);
    std::optional<StoreObject> pinned;
    EXPECT_EQ(reservation->commit(pinned).code(), ErrorCode::Expired);
    EXPECT_TRUE(reservation->bytes().empty());
    EXPECT_EQ(reservation->ref().incarnation, 0U);
    EXPECT_EQ(reservation->offset(), 0U);
    reservation->abort();
    ASSERT_TRUE(staged.commit());
    Result<StoreObject> object = moved.get("k");
    ASSERT_TRUE(object.is_ok());
    StoreObject read = *std::move(object);
    EXPECT_TRUE(object->bytes().empty());
    EXPECT_FALSE(object->is_open());
    EXPECT_FALSE(object->share().is_open());
    EXPECT_EQ(object->offset(), 0U);
    object->release();
    const std::string instance = moved.instance();
    moved.close();
    expect_closed("Store, closed,", calls(moved));
    EXPECT_EQ(moved.name(), name_);
    EXPECT_EQ(moved.instance(), instance);
    EXPECT_EQ(read.bytes().size(), 8U) << "what was read stays";
}

TEST_F(ClosedHandlesTest, StoreWithASecondTier) {
    StoreOptions options;
    options.second_tier.emplace().urls = {"redis://127.0.0.1:1"};  // an outage
    std::optional<Store> store;
    try {
        store.emplace(Store::create(name_, options));
    } catch (const Error& error) {
        GTEST_SKIP() << error.what();  // built without Redis
    }
    Store moved = *std::move(store);
    expect_closed("Store with a second tier, moved from,", calls(*store));
    moved.close(soon_);
    expect_closed("Store with a second tier, closed,", calls(moved));
}

TEST_F(ClosedHandlesTest, Trajectories) {
    TrajectoryReader reader = TrajectoryReader::create(name_, test::small_trajectories(), 2);
    TrajectoryWriter writer = TrajectoryWriter::attach(name_, test::environment("maths"));
    TrajectoryWriter moved_writer = std::move(writer);
    expect_closed("TrajectoryWriter, moved from,",
                  calls(writer));  // NOLINT(bugprone-use-after-move)
    TrajectoryReader moved = std::move(reader);
    expect_closed("TrajectoryReader, moved from,",
                  calls(reader));  // NOLINT(bugprone-use-after-move)

    Result<Rollout> rollout = moved_writer.begin(test::kLong);
    ASSERT_TRUE(rollout.is_ok());
    Rollout begun = *std::move(rollout);
    rollout->release();
    const std::vector<std::byte> message = test::MadeGroup("maths", 1, {3, 4}).message();
    Result<QueueLoan> loan = moved_writer.loan(message.size());
    ASSERT_TRUE(loan.is_ok());
    std::copy(message.begin(), message.end(), loan->bytes().begin());
    QueueLoan filled = *std::move(loan);
    EXPECT_EQ(moved_writer.commit(*loan).closed_by(), ClosedBy::Self);
    ASSERT_TRUE(moved_writer.commit(filled, &begun));
    EXPECT_EQ(moved_writer.commit(filled).closed_by(), ClosedBy::Self);

    Result<TrajectoryBatch> batch = moved.next_batch({}, test::kLong);
    ASSERT_TRUE(batch.is_ok()) << batch.status().message();
    TrajectoryBatch taken = *std::move(batch);
    expect_closed("TrajectoryBatch, moved from,", calls(*batch));
    EXPECT_EQ(batch->total(), 0U);
    EXPECT_TRUE(batch->lengths().empty());
    taken.ack(1);
    expect_closed("TrajectoryBatch, acknowledged,", calls(taken));
    moved_writer.close();
    expect_closed("TrajectoryWriter, closed,", calls(moved_writer));
    const std::string instance = moved.instance();
    moved.close();
    expect_closed("TrajectoryReader, closed,", calls(moved));
    EXPECT_FALSE(instance.empty());
    EXPECT_EQ(moved.instance(), instance);
    EXPECT_EQ(moved_writer.instance(), instance);
    EXPECT_EQ(moved_writer.environment(), "maths");
}

// The end of a stream is not the end of a handle.
TEST_F(ClosedHandlesTest, APeersCloseEndsTheStreamNotTheHandle) {
    BroadcastWriter writer = BroadcastWriter::create(name_, {.readers = 1, .capacity = 4096});
    BroadcastReader reader = BroadcastReader::attach(name_, 0);
    writer.close();
    EXPECT_EQ(reader.recv(soon_).status().code(), ErrorCode::Closed);
    EXPECT_EQ(reader.recv(soon_).status().closed_by(), ClosedBy::Peer);
    reader.close();

    Queue queue = Queue::create(name_, {.capacity = 1 << 16U, .slots = 4});
    Queue other = Queue::attach(name_);
    queue.close();
    EXPECT_EQ(other.put(bytes_, soon_).closed_by(), ClosedBy::Peer);
    EXPECT_EQ(other.take(soon_).status().closed_by(), ClosedBy::Peer);
    EXPECT_EQ(Status(ErrorCode::Timeout).closed_by(), ClosedBy::Nobody);
}

}  // namespace
}  // namespace penstock

// NOLINTEND(bugprone-use-after-move)
