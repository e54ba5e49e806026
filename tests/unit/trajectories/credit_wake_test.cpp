// A wait for credit is ended by the call that frees credit or ends the stream, and not by the end
// of a slice: the count of wake-ups has changed when that call returns.
#include <functional>
#include <string>

#include "segment/words/atomics.hpp"
#include "tests/unit/trajectories/trajectory_fixture.hpp"
#include "trajectories/board.hpp"

namespace penstock {
namespace {

using namespace test;

class CreditWakeTest : public TrajectoryTest {
protected:
    // The signal word on which environments sleep, by a look from outside.
    std::uint32_t credit_word() {
        if (!look_) {
            look_.emplace(
                Queue::attach(name_, QueueRole::Any, Deadline::now(), {}, detail::kTrajectories));
        }
        const auto& core = detail::QueueAccess::core(*look_);
        const auto* head = reinterpret_cast<layout::BoardHead*>(core->view.application());
        return detail::load_acquire(head->credit.word);
    }
    // A process waits for credit in vain; `act` must wake it.
    void expect_wakes(const std::function<void()>& act) {
        static_cast<void>(credit_word());
        Child waiting([&] {
            auto writer = TrajectoryWriter::attach(name_, environment("waiting", 8));
            const auto rollout = writer.begin(kLong);
            require(rollout.is_ok() || rollout.code() == ErrorCode::Closed);
        });
        await([&] { return (credit_word() & 1U) != 0; });
        waiting.await_sleep();
        const std::uint32_t before = credit_word();
        act();
        EXPECT_NE(credit_word(), before);
        EXPECT_EQ(waiting.wait(), 0);
        look_.reset();
    }

    static TrajectoryOptions options(unsigned max_deliveries = 0) {
        TrajectoryOptions made = small_trajectories(0);
        made.max_deliveries = max_deliveries;
        return made;
    }

    std::optional<Queue> look_;
};

TEST_F(CreditWakeTest, TheTrainersEnd) {
    auto reader = TrajectoryReader::create(name_, options(), 8);
    auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
    const auto rollout = holder.begin(Deadline::now()).or_throw();
    expect_wakes([&] { reader.end(); });
}

TEST_F(CreditWakeTest, TheTrainersClose) {
    auto reader = TrajectoryReader::create(name_, options(), 8);
    auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
    const auto rollout = holder.begin(Deadline::now()).or_throw();
    expect_wakes([&] { reader.close(); });
}

TEST_F(CreditWakeTest, Discard) {
    auto reader = TrajectoryReader::create(name_, options(), 8);
    auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
    const auto rollout = holder.begin(Deadline::now()).or_throw();
    expect_wakes([&] { reader.discard(); });
}

TEST_F(CreditWakeTest, AnEnvironmentsEnd) {
    auto reader = TrajectoryReader::create(name_, options(), 8);
    auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
    const auto rollout = holder.begin(Deadline::now()).or_throw();
    expect_wakes([&] { holder.end(); });
}

TEST_F(CreditWakeTest, TheCreatingEnvironmentsClose) {
    auto creator = TrajectoryWriter::create(name_, options(), environment("creator"));
    auto reader = TrajectoryReader::attach(name_, 8);
    auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
    const auto rollout = holder.begin(Deadline::now()).or_throw();
    expect_wakes([&] { creator.close(); });
}

// A message that is no group becomes a dead letter, and is no work in progress any more.
TEST_F(CreditWakeTest, AMessageThatIsNoGroup) {
    auto reader = TrajectoryReader::create(name_, options(), 8);
    {
        Queue raw =
            Queue::attach(name_, QueueRole::Any, Deadline::now(), {}, detail::kTrajectories);
        const std::vector<std::byte> garbage(100);
        const auto tag = layout::encode_tag({8, detail::environment_hash("holder")});
        ASSERT_TRUE(succeeds(raw.put(garbage, Deadline::now(), Format::Typed, tag)));
        auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
        expect_wakes([&] {
            EXPECT_TRUE(fails(reader.next_batch({}, Deadline::now()), ErrorCode::Corrupt));
        });
    }
    reader.discard();
}

TEST_F(CreditWakeTest, AGroupAtItsDeliveryLimit) {
    auto reader = TrajectoryReader::create(name_, options(1), 8);
    auto holder = TrajectoryWriter::attach(name_, environment("holder", 8));
    ASSERT_TRUE(succeeds(put(holder, 1, 8)));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    expect_wakes([&] { batch->nack(); });
    reader.discard();
}

}  // namespace
}  // namespace penstock
