// The accounts of a queue of trajectories, set by hand: what counts as work in progress, what is
// left of the window, and how environments share it.
#include "trajectories/board.hpp"

#include <gtest/gtest.h>

#include <bit>
#include <limits>

#include "tests/unit/support/control_block.hpp"
#include "tests/unit/trajectories/trajectory_fixture.hpp"
#include "trajectories/state.hpp"

namespace penstock::test {
namespace {

using detail::Board;
using detail::environment_hash;
using layout::SlotState;

constexpr std::uint64_t kSlots = 64;
constexpr std::uint64_t kGroup = 2;   // sequences of every group here
constexpr std::uint64_t kBatch = 10;  // sequences; with a staleness of 1 there are 20 on the way

detail::QueueShape board_shape() {
    detail::QueueShape shape;
    shape.slots = kSlots;
    shape.cell_bytes = 64;
    shape.participants = 4;
    shape.arena.granule_bytes = 4096;
    shape.application_bytes = Board::bytes(shape.participants);
    return shape;
}

struct Settings {
    double weight = 1;
    double min_share = 0;
};

class BoardTest : public testing::Test {
protected:
    BoardTest() {
        board_.state().batch_sequences.store(kBatch);
        board_.state().max_staleness.store(1);
    }
    [[nodiscard]] layout::BoardParticipant& participant(unsigned place) const {
        return reinterpret_cast<layout::BoardParticipant*>(view_.application() +
                                                           sizeof(layout::BoardHead))[place];
    }
    void live(unsigned place, const std::string& environment, const Settings& settings = {}) {
        layout::BoardParticipant& one = participant(place);
        one.weight.store(std::bit_cast<std::uint64_t>(settings.weight));
        one.min_share.store(std::bit_cast<std::uint64_t>(settings.min_share));
        one.group_size.store(kGroup);
        one.name[0].store(detail::application_word(environment));
        one.environment.store(environment_hash(environment));
        view_.participant(place).role.store(1);
    }
    void die(unsigned place) { view_.participant(place).role.store(0); }
    void run(unsigned place, std::uint64_t groups) {
        participant(place).running.store(layout::encode_load({groups, groups * kGroup}));
    }
    // A group of that environment in a slot.
    void put(std::uint64_t slot, SlotState state, const std::string& environment) {
        view_.slot(slot).tag.store(layout::encode_tag({kGroup, environment_hash(environment)}));
        view_.slot(slot).word.store(layout::encode_slot({state, 0, 0, 0}));
    }
    [[nodiscard]] std::uint64_t credit(const std::string& environment) const {
        return board_.credit(environment_hash(environment), kGroup);
    }

    ControlBlock control_{board_shape().control_bytes()};
    detail::QueueView view_{board_shape(), control_.data()};
    Board board_{view_};
};

TEST_F(BoardTest, AnEnvironmentAloneHasTheWholeWindow) {
    live(0, "a");
    EXPECT_EQ(credit("a"), 10U);
    board_.state().max_staleness.store(0);
    EXPECT_EQ(credit("a"), 5U);
    board_.state().batch_sequences.store(0);
    EXPECT_EQ(credit("a"), 0U) << "no trainer has come yet";
    board_.state().max_staleness.store(kUnlimited);
    EXPECT_EQ(credit("a"), kSlots) << "there are no more slots";
}

TEST_F(BoardTest, RolloutsCountWhileTheirWriterLives) {
    live(0, "a");
    live(1, "a");
    run(1, 3);
    EXPECT_EQ(credit("a"), 7U);
    EXPECT_FALSE(board_.is_idle());
    participant(0).asking.store(layout::encode_load({1, kGroup}));
    EXPECT_EQ(credit("a"), 6U) << "so does what is asked for";
    die(1);
    EXPECT_EQ(credit("a"), 9U);
    EXPECT_TRUE(board_.is_idle());
}

TEST_F(BoardTest, PutGroupsCountUntilTheyAreAcknowledged) {
    live(0, "a");
    for (const SlotState state :
         {SlotState::Empty, SlotState::Claimed, SlotState::Ready, SlotState::Taken, SlotState::Done,
          SlotState::Overtaken, SlotState::Returned, SlotState::DeadLetter}) {
        put(7, state, "a");
        const bool is_there =
            state == SlotState::Ready || state == SlotState::Taken || state == SlotState::Returned;
        EXPECT_EQ(credit("a"), is_there ? 9U : 10U) << static_cast<int>(state);
        const auto environments = board_.environments();
        ASSERT_EQ(environments.size(), 1U);
        EXPECT_EQ(environments[0].waiting_groups, is_there ? 1U : 0U) << static_cast<int>(state);
    }
}

TEST_F(BoardTest, GroupsOfDeadWritersStillCount) {
    live(0, "a");
    put(7, SlotState::Ready, "b");
    EXPECT_EQ(credit("a"), 9U);
    const auto environments = board_.environments();
    ASSERT_EQ(environments.size(), 2U) << "one of them unknown by name";
    EXPECT_EQ(environments[1].name, "");
    EXPECT_EQ(environments[1].waiting_sequences, kGroup);
}

TEST_F(BoardTest, DeadLettersTakeSlotsButNoCredit) {
    live(0, "a");
    put(7, SlotState::DeadLetter, "a");
    view_.state().had_dead_letters.store(1);
    EXPECT_EQ(credit("a"), 10U);
    board_.state().max_staleness.store(kUnlimited);
    EXPECT_EQ(credit("a"), kSlots - 1);
}

TEST_F(BoardTest, WeightsShareTheWindowOncePerEnvironment) {
    live(0, "a", {1, 0});
    live(1, "b", {3, 0});
    live(2, "b", {3, 0});
    EXPECT_EQ(credit("a"), 2U);  // 5 of 20 sequences
    EXPECT_EQ(credit("b"), 7U);  // 15
    run(1, 4);
    EXPECT_EQ(credit("b"), 3U);
    EXPECT_EQ(credit("a"), 2U);
    run(1, 9);
    EXPECT_EQ(credit("a"), 1U) << "more than the window has is for none";
}

TEST_F(BoardTest, MinimumSharesAreReserved) {
    live(0, "a", {9, 0});
    live(1, "b", {1, 0.5});
    EXPECT_EQ(credit("a"), 5U);
    EXPECT_EQ(credit("b"), 5U) << "though its weight is a tenth";
    die(1);
    EXPECT_EQ(credit("a"), 10U);
}

TEST_F(BoardTest, EveryEnvironmentMayBeginOneGroup) {
    live(0, "a", {1e-9, 0});
    live(1, "b", {1, 0});
    EXPECT_EQ(credit("a"), 1U);
    run(0, 1);
    EXPECT_EQ(credit("a"), 0U);
}

TEST_F(BoardTest, WeightsAreIgnoredWhereAllAreStuck) {
    live(0, "a", {1, 0});
    live(1, "b", {3, 0});
    run(0, 2);
    EXPECT_EQ(credit("a"), 0U);
    board_.state().shortage.store(layout::kStuck);
    EXPECT_EQ(credit("a"), 8U);
    run(1, 8);
    EXPECT_EQ(credit("a"), 0U) << "the window does";
    board_.state().shortage.store(layout::kStuck + 4);
    EXPECT_EQ(credit("a"), 2U) << "and grows by what is said not to count";
}

TEST_F(BoardTest, ImpossibleSettingsStillGiveNumbers) {
    for (const double bad : {std::numeric_limits<double>::quiet_NaN(),
                             std::numeric_limits<double>::infinity(), -1.0}) {
        live(0, "a", {bad, bad});
        EXPECT_LE(credit("a"), kSlots);
        live(1, "b", {1, 0});
        EXPECT_LE(credit("a"), 1U) << "no weight, no part";
        die(1);
    }
    participant(0).running.store(~std::uint64_t{0});
    EXPECT_EQ(credit("a"), 0U);
}

TEST_F(BoardTest, WritersOfOneEnvironmentCountOnce) {
    live(0, "a", {1, 0.1});
    live(1, "b", {1, 0});
    live(3, "a", {1, 0.3});
    run(0, 1);
    run(3, 2);
    const auto living = board_.living();
    ASSERT_EQ(living.size(), 2U);
    EXPECT_EQ(living[0].name, "a");
    EXPECT_EQ(living[0].writers, 2U);
    EXPECT_EQ(living[0].running_groups, 3U);
    EXPECT_EQ(living[0].min_share, 0.3);
    EXPECT_EQ(living[1].name, "b");
}

TEST_F(BoardTest, TheAppetiteReportsWhetherCreditIsShort) {
    live(0, "a");
    EXPECT_FALSE(board_.appetite().has_refused);
    EXPECT_TRUE(board_.appetite().has_room);
    run(0, 10);
    EXPECT_TRUE(board_.appetite().has_refused);
    EXPECT_FALSE(board_.appetite().has_room);
    EXPECT_EQ(board_.appetite().on_the_way, 20U);
    run(0, 5);
    live(1, "b");
    EXPECT_TRUE(board_.appetite().has_refused) << "a has its half";
    EXPECT_TRUE(board_.appetite().has_room);
}

TEST(EnvironmentHash, IsNeverZeroAndFitsATag) {
    for (const char* name : {"", "a", "maths", "a name of many letters, longer than any word"}) {
        const std::uint64_t hash = environment_hash(name);
        EXPECT_NE(hash, 0U);
        EXPECT_EQ(layout::decode_tag(layout::encode_tag({1, hash})).environment, hash);
    }
    EXPECT_NE(environment_hash("a"), environment_hash("b"));
}

// ---- asking, by a participant of the queue

class AskingTest : public TrajectoryTest {
protected:
    AskingTest() {
        board_.sign(environment("a", kGroup));
        own().role.store(1);
        board_.state().batch_sequences.store(kGroup);  // room for one group
    }
    void TearDown() override {
        queue_.close();
        core_.reset();
        TrajectoryTest::TearDown();
    }
    [[nodiscard]] layout::QueueParticipant& own() const {
        return core_->view.participant(core_->self);
    }
    bool begin(bool wakes = true) {
        const bool is_begun = board_.try_begin(environment_hash("a"), kGroup, wakes);
        EXPECT_EQ(board_.own().asking.load(), 0U) << "the question is taken back";
        return is_begun;
    }
    // Another writer that has asked and not begun, stopped there for instance.
    void ask_beside_us(unsigned place) {
        layout::BoardParticipant& other =
            *(&board_.own() + static_cast<std::ptrdiff_t>(place) - core_->self);
        other.environment.store(environment_hash("b"));
        other.asking.store(layout::encode_load({1, kGroup}));
        core_->view.participant(place).role.store(1);
    }
    [[nodiscard]] std::uint64_t running() const {
        return layout::decode_load(board_.own().running.load()).groups;
    }

    Queue queue_ = detail::create_trajectories(name_, small_trajectories(0));
    std::shared_ptr<detail::QueueCore> core_ = detail::QueueAccess::core(queue_);
    Board board_{*core_};
};

TEST_F(AskingTest, GroupsBeginUntilTheWindowIsFull) {
    EXPECT_TRUE(begin());
    EXPECT_EQ(running(), 1U);
    EXPECT_FALSE(begin());
    EXPECT_EQ(running(), 1U);
    board_.own().running.store(0);
    EXPECT_TRUE(begin());
}

TEST_F(AskingTest, CreditThatAnotherAsksForIsTaken) {
    ask_beside_us(core_->self + 1);
    EXPECT_FALSE(begin());
    EXPECT_EQ(running(), 0U);
    core_->view.participant(core_->self + 1).role.store(0);  // it died
    EXPECT_TRUE(begin());
}

TEST_F(AskingTest, AWithdrawnRequestWakesOthersOnlyIfTold) {
    ask_beside_us(core_->self + 1);
    std::atomic<std::uint32_t>& credit =
        reinterpret_cast<layout::BoardHead*>(core_->view.application())->credit.word;
    credit.store(1);  // announces a waiter
    EXPECT_FALSE(begin(false));
    EXPECT_EQ(credit.load(), 1U);
    EXPECT_FALSE(begin(true));
    EXPECT_EQ(credit.load(), 2U);
}

TEST_F(AskingTest, AWriterThatSignsAgainHasNoRollouts) {
    EXPECT_TRUE(begin());
    board_.sign(environment("c", 3, 2.5, 0.25));
    EXPECT_EQ(running(), 0U);
    const auto living = board_.living();
    ASSERT_EQ(living.size(), 1U);
    EXPECT_EQ(living[0].name, "c");
    EXPECT_EQ(living[0].group_size, 3U);
    EXPECT_EQ(living[0].weight, 2.5);
    EXPECT_EQ(living[0].min_share, 0.25);
}

}  // namespace
}  // namespace penstock::test
