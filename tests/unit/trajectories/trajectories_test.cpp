// Environments, credit and batches, through the public API.
#include <cstring>
#include <thread>

#include "tests/unit/trajectories/trajectory_fixture.hpp"

namespace penstock {
namespace {

using namespace test;
using codec::DType;
using Ids = std::vector<std::string>;

TEST_F(TrajectoryTest, BatchIsExactAndOldestFirst) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 8);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    for (std::int32_t number = 0; number < 5; ++number) {
        ASSERT_TRUE(succeeds(put(writer, number)));
    }
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), (Ids{"g0", "g1", "g2", "g3"}));
    EXPECT_EQ(batch->lengths(), std::vector<std::uint64_t>(8, 3));
    batch->ack(1);
    EXPECT_EQ(reader.version(), 1U);
    EXPECT_EQ(reader.stats().sequences, 8U);
    const auto none = reader.next_batch({}, Deadline::now());
    ASSERT_TRUE(fails(none, ErrorCode::Timeout));
    EXPECT_NE(none.status().message().find("2 sequences wait; of 'a' 1 x 2"),
              std::string_view::npos)
        << none.status().message();
    EXPECT_EQ(reader.discard(), 1U);
}

TEST_F(TrajectoryTest, OlderVersionsGoFirst) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 0, 2, nullptr, 5)));
    ASSERT_TRUE(succeeds(put(writer, 1, 2, nullptr, 3)));
    auto first = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(first));
    EXPECT_EQ(ids(*first), Ids{"g1"});
    first->ack(0);
    EXPECT_EQ(reader.discard(), 1U);
}

TEST_F(TrajectoryTest, RowsArePaddedPackedAndShifted) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 3);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 1, {2, 4}))));
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 2, {1}))));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(batch->longest(), 4U);
    EXPECT_EQ(batch->total(), 7U);

    std::vector<std::int64_t> padded(3 * 5, 77);
    const OutputArray out = {DType::Int64, reinterpret_cast<std::byte*>(padded.data()), 40, 5, 15};
    ASSERT_TRUE(succeeds(batch->fill_padded(Column::Tokens, out, -1)));
    EXPECT_EQ(padded, (std::vector<std::int64_t>{1'000'000, 1'000'001, -1, -1, -1,  //
                                                 1'001'000, 1'001'001, 1'001'002, 1'001'003, -1,
                                                 2'000'000, -1, -1, -1, -1}));
    std::vector<float> packed(7);
    ASSERT_TRUE(succeeds(batch->fill_packed(
        Column::InferenceLogprobs,
        {DType::Float32, reinterpret_cast<std::byte*>(packed.data()), 0, 0, 7})));
    EXPECT_EQ(packed[6], -2'000'000.0F);
    std::vector<std::int32_t> ends(4);
    batch->fill_cu_seqlens(ends);
    EXPECT_EQ(ends, (std::vector<std::int32_t>{0, 2, 6, 7}));
    std::vector<double> scores(3);
    ASSERT_TRUE(succeeds(batch->fill_scores(scores)));
    EXPECT_EQ(scores, (std::vector<double>{1.0, 1.5, 2.0}));
    batch->untake();

    auto shifted = reader.next_batch({.causal_shift = true}, kLong);
    ASSERT_TRUE(succeeds(shifted));
    EXPECT_EQ(shifted->lengths(), (std::vector<std::uint64_t>{1, 3, 0}));
    std::vector<std::int32_t> tokens(4);
    std::vector<std::int32_t> masks(4);
    ASSERT_TRUE(succeeds(shifted->fill_packed(
        Column::Tokens, {DType::Int32, reinterpret_cast<std::byte*>(tokens.data()), 0, 0, 4})));
    ASSERT_TRUE(succeeds(shifted->fill_packed(
        Column::Masks, {DType::Int32, reinterpret_cast<std::byte*>(masks.data()), 0, 0, 4})));
    EXPECT_EQ(tokens, (std::vector<std::int32_t>{1'000'000, 1'001'000, 1'001'001, 1'001'002}));
    EXPECT_EQ(masks, (std::vector<std::int32_t>{1'000'001, 1'001'001, 1'001'002, 1'001'003}));
    shifted->ack(1);
}

// Sent where a model generated no token.
TEST_F(TrajectoryTest, ASequenceWithoutTokensIsAnEmptyRow) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 3);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 1, {2, 0, 3}))));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(batch->lengths(), (std::vector<std::uint64_t>{2, 0, 3}));
    std::vector<std::int32_t> ends(4);
    batch->fill_cu_seqlens(ends);
    EXPECT_EQ(ends, (std::vector<std::int32_t>{0, 2, 2, 5}));
    std::vector<std::int32_t> padded(9, 77);
    const OutputArray out = {DType::Int32, reinterpret_cast<std::byte*>(padded.data()), 12, 3, 9};
    ASSERT_TRUE(succeeds(batch->fill_padded(Column::Tokens, out, -1)));
    EXPECT_EQ(padded, (std::vector<std::int32_t>{1'000'000, 1'000'001, -1, -1, -1, -1, 1'002'000,
                                                 1'002'001, 1'002'002}));
    batch->untake();

    auto shifted = reader.next_batch({.causal_shift = true}, kLong);
    ASSERT_TRUE(succeeds(shifted));
    EXPECT_EQ(shifted->lengths(), (std::vector<std::uint64_t>{1, 0, 2})) << "none is less than 0";
    EXPECT_EQ(shifted->total(), 3U);
    std::vector<std::int32_t> masks(3);
    ASSERT_TRUE(succeeds(shifted->fill_packed(
        Column::Masks, {DType::Int32, reinterpret_cast<std::byte*>(masks.data()), 0, 0, 3})));
    EXPECT_EQ(masks, (std::vector<std::int32_t>{1'000'001, 1'002'001, 1'002'002}));
    shifted->ack(1);
}

// Rows that continue each other are one copy: with and without gaps, conversion and shift.
TEST_F(TrajectoryTest, RowsThatFillTheirPlacesAreCopiedWhole) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 6);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 1, {3, 3, 3}))));
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 2, {3, 0, 3}))));
    const std::vector<std::vector<std::int64_t>> rows = {{1'000'000, 1'000'001, 1'000'002},
                                                         {1'001'000, 1'001'001, 1'001'002},
                                                         {1'002'000, 1'002'001, 1'002'002},
                                                         {2'000'000, 2'000'001, 2'000'002},
                                                         {-1, -1, -1},
                                                         {2'002'000, 2'002'001, 2'002'002}};
    const auto expect_rows = [&](const TrajectoryBatch& batch, auto item, DType dtype,
                                 std::size_t gap) {
        using Item = decltype(item);
        const std::size_t columns = batch.longest();
        const std::size_t step = columns + gap;
        std::vector<Item> padded(rows.size() * step, Item{77});
        const OutputArray out = {dtype, reinterpret_cast<std::byte*>(padded.data()),
                                 step * sizeof(Item), columns, rows.size() * columns};
        ASSERT_TRUE(succeeds(batch.fill_padded(Column::Tokens, out, -1)));
        std::vector<Item> due;
        for (const std::vector<std::int64_t>& row : rows) {
            for (std::size_t at = 0; at < columns; ++at) {
                due.push_back(static_cast<Item>(row[at]));
            }
            due.insert(due.end(), gap, Item{77});
        }
        EXPECT_EQ(padded, due) << columns << " items, and a gap of " << gap;
    };
    for (const bool is_shifted : {false, true}) {
        auto batch = reader.next_batch({.causal_shift = is_shifted}, kLong);
        ASSERT_TRUE(succeeds(batch));
        for (const std::size_t gap : {0U, 2U}) {
            expect_rows(*batch, std::int32_t{}, DType::Int32, gap);
            expect_rows(*batch, std::int64_t{}, DType::Int64, gap);
        }
        batch->untake();
    }
    EXPECT_EQ(reader.discard(), 2U);
}

TEST_F(TrajectoryTest, ABatchOfEmptySequencesHasNoTokens) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    MadeGroup made("a", 1, {0, 0});
    made.tokens_.reserve(1);  // gives the empty column an address: it exists
    made.masks_.reserve(1);
    ASSERT_TRUE(succeeds(put(writer, made)));
    for (const bool is_shifted : {false, true}) {
        auto batch = reader.next_batch({.causal_shift = is_shifted}, kLong);
        ASSERT_TRUE(succeeds(batch));
        EXPECT_EQ(batch->total(), 0U);
        EXPECT_EQ(batch->longest(), 0U);
        EXPECT_TRUE(succeeds(batch->fill_packed(Column::Tokens, {DType::Int32, nullptr, 0, 0, 0})));
        if (is_shifted) {
            batch->ack(1);
        } else {
            batch->untake();
        }
    }
}

TEST_F(TrajectoryTest, ArraysThatDoNotFitAreRefused) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 5)));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    std::vector<std::int16_t> small(100);
    auto* const data = reinterpret_cast<std::byte*>(small.data());
    EXPECT_TRUE(fails(batch->fill_padded(Column::Tokens, {DType::Int32, data, 8, 2, 4}, 0),
                      ErrorCode::TooLarge));
    EXPECT_TRUE(fails(batch->fill_packed(Column::Tokens, {DType::Int32, data, 0, 0, 5}),
                      ErrorCode::TooLarge));
    EXPECT_TRUE(fails(batch->fill_packed(Column::Tokens, {DType::Int16, data, 0, 0, 50}),
                      ErrorCode::InvalidArgument));
    EXPECT_TRUE(fails(batch->fill_packed(Column::Tokens, {DType::Float32, data, 0, 0, 50}),
                      ErrorCode::InvalidArgument));
    const auto lacking = batch->dtype(Column::Advantages);
    ASSERT_TRUE(fails(lacking, ErrorCode::InvalidArgument));
    EXPECT_EQ(lacking.status().message(), "the group 'g5' of 'a' has no column 'advantages'");
    batch->ack(1);
}

TEST_F(TrajectoryTest, MinimumSharesHoldWhileTheirEnvironmentLives) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 8);
    auto many = TrajectoryWriter::attach(name_, environment("many"));
    {
        auto few = TrajectoryWriter::attach(name_, environment("few", 2, 1, 0.25));
        for (std::int32_t number = 0; number < 8; ++number) {
            ASSERT_TRUE(succeeds(put(many, number)));
        }
        const auto none = reader.next_batch({}, Deadline::now());
        ASSERT_TRUE(fails(none, ErrorCode::Timeout));
        EXPECT_NE(none.status().message().find("'few' is to have 2 and has 0"),
                  std::string_view::npos);
        ASSERT_TRUE(succeeds(put(few, 100)));
        auto batch = reader.next_batch({}, kLong);
        ASSERT_TRUE(succeeds(batch));
        EXPECT_EQ(ids(*batch), (Ids{"g0", "g1", "g2", "g100"}));
        batch->ack(1);
    }
    auto batch = reader.next_batch({}, kLong);  // it has left: its share is free
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), (Ids{"g3", "g4", "g5", "g6"}));
    batch->ack(2);
    EXPECT_EQ(reader.discard(), 1U);
}

TEST_F(TrajectoryTest, SharesAboveOneAreRefused) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 8);
    auto one = TrajectoryWriter::attach(name_, environment("one", 1, 1, 0.7));
    try {
        auto other = TrajectoryWriter::attach(name_, environment("other", 1, 1, 0.4));
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::InvalidArgument);
        EXPECT_NE(std::string(error.what()).find("one"), std::string::npos);
    }
    auto again = TrajectoryWriter::attach(name_, environment("one", 1, 1, 0.7));
}

TEST_F(TrajectoryTest, SharesAboveOneAreScaledOnRequest) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 8);
    auto one = TrajectoryWriter::attach(name_, environment("one", 2, 1, 0.9));
    EnvironmentOptions options = environment("other", 2, 1, 0.9);
    options.scales_shares = true;
    auto other = TrajectoryWriter::attach(name_, options);
    for (std::int32_t number = 0; number < 4; ++number) ASSERT_TRUE(succeeds(put(one, number)));
    EXPECT_TRUE(fails(reader.next_batch({}, Deadline::now()), ErrorCode::Timeout))
        << "half of it is the other's";
    for (std::int32_t number = 4; number < 8; ++number) ASSERT_TRUE(succeeds(put(other, number)));
    for (const Ids& due : {Ids{"g0", "g1", "g4", "g5"}, Ids{"g2", "g3", "g6", "g7"}}) {
        auto batch = reader.next_batch({}, kLong);
        ASSERT_TRUE(succeeds(batch));
        EXPECT_EQ(ids(*batch), due);
        batch->ack(1);
    }
}

TEST_F(TrajectoryTest, QueuedGroupsAreCountedByEnvironment) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 16);
    auto small = TrajectoryWriter::attach(name_, environment("small"));
    auto large = TrajectoryWriter::attach(name_, environment("large"));
    ASSERT_TRUE(succeeds(put(small, 1, 1)));
    ASSERT_TRUE(succeeds(put(small, 2, 3)));
    ASSERT_TRUE(succeeds(put(small, 3, 2)));
    ASSERT_TRUE(succeeds(put(large, 4, 8)));
    for (const EnvironmentStats& stats : reader.stats().environments) {
        const bool is_small = stats.name == "small";
        EXPECT_EQ(stats.waiting_groups, is_small ? 3U : 1U) << stats.name;
        EXPECT_EQ(stats.waiting_sequences, is_small ? 6U : 8U) << stats.name;
        EXPECT_EQ(stats.largest_waiting, is_small ? 3U : 8U) << stats.name;
    }
    EXPECT_EQ(reader.stats().environments.size(), 2U);
    EXPECT_EQ(reader.discard(), 4U);
}

TEST_F(TrajectoryTest, CreditIsTheWindowOfStaleness) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(1), 8);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 4));
    EXPECT_EQ(writer.credit(), 4U);  // (1 + 1) * 8 sequences
    std::vector<Rollout> rollouts;
    for (int i = 0; i < 4; ++i) {
        auto rollout = writer.begin(Deadline::now());
        ASSERT_TRUE(succeeds(rollout));
        rollouts.push_back(*std::move(rollout));
    }
    EXPECT_EQ(writer.credit(), 0U);
    EXPECT_TRUE(fails(writer.begin(Deadline::now()), ErrorCode::Timeout));
    for (std::int32_t i = 0; i < 2; ++i) {
        ASSERT_TRUE(succeeds(put(writer, i, 4, &rollouts[static_cast<std::size_t>(i)])));
    }
    EXPECT_EQ(writer.credit(), 0U);  // put, and not trained on
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(writer.credit(), 0U);
    batch->ack(1);
    EXPECT_EQ(writer.credit(), 2U);
    rollouts.clear();
    EXPECT_EQ(writer.credit(), 4U);
    EXPECT_EQ(writer.version(), 1U);
}

// Groups of 5 and 7 in a window of 24: each share is used up before 5 + 5 + 7 + 7 are there.
TEST_F(TrajectoryTest, CreditDoesNotEndBeforeABatchCanBeMade) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 24);
    auto keeper = TrajectoryWriter::attach(name_, environment("keeper", 24, 1e-6));
    const auto work = [&](const char* name, unsigned size) {
        auto writer = TrajectoryWriter::attach(name_, environment(name, size));
        for (std::int32_t number = 0; number < 10; ++number) {
            auto rollout = writer.begin(kLong);
            if (rollout.code() == ErrorCode::Closed) return;
            require(rollout.is_ok());
            const Status accepted = put(writer, number, size, &*rollout);
            if (accepted.code() == ErrorCode::Closed) return;  // the stream ended meanwhile
            require(accepted.is_ok());
        }
    };
    Child fives([&] { work("fives", 5); });
    Child sevens([&] { work("sevens", 7); });
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(batch->lengths().size(), 24U);
    batch->ack(1);
    reader.end();
    EXPECT_EQ(fives.wait(), 0);
    EXPECT_EQ(sevens.wait(), 0);
    reader.discard();
}

TEST_F(TrajectoryTest, NoTrainerNoCredit) {
    auto first = TrajectoryWriter::create(name_, small_trajectories(0), environment("a", 4));
    EXPECT_EQ(first.credit(), 0U);
    const auto none = first.begin(Deadline::now());
    ASSERT_TRUE(fails(none, ErrorCode::Timeout));
    EXPECT_NE(none.status().message().find("no trainer"), std::string_view::npos);
    auto reader = TrajectoryReader::attach(name_, 8);
    EXPECT_EQ(first.credit(), 2U);
}

TEST_F(TrajectoryTest, CreditIsSharedByWeight) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(3), 16);  // 64 sequences
    auto heavy = TrajectoryWriter::attach(name_, environment("heavy", 4, 3));
    auto light = TrajectoryWriter::attach(name_, environment("light", 4, 1));
    auto again = TrajectoryWriter::attach(name_, environment("heavy", 4, 3));
    EXPECT_EQ(heavy.credit(), 12U);
    EXPECT_EQ(light.credit(), 4U);
    auto rollout = again.begin(Deadline::now());
    ASSERT_TRUE(succeeds(rollout));
    EXPECT_EQ(heavy.credit(), 11U);
    EXPECT_EQ(light.credit(), 4U);
}

TEST_F(TrajectoryTest, CreditOfTheDeadIsFreed) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 8);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 4));
    Gate begun;
    Child child([&] {
        auto doomed = TrajectoryWriter::attach(name_, environment("a", 4));
        std::vector<Rollout> rollouts;
        for (int i = 0; i < 2; ++i) rollouts.push_back(doomed.begin(kLong).or_throw());
        begun.open();
        for (;;) ::pause();
    });
    begun.pass();
    EXPECT_EQ(writer.credit(), 0U);
    child.kill_unreaped();
    auto rollout = writer.begin(kLong);
    ASSERT_TRUE(succeeds(rollout));
    EXPECT_EQ(writer.credit(), 1U);
}

// Four processes begin and abandon rollouts as fast as they can: never more than the window at
// once.
TEST_F(TrajectoryTest, CreditNeverGoesBeyondTheWindow) {
    constexpr int kProcesses = 4;
    constexpr int kRounds = 400;
    auto reader = TrajectoryReader::create(name_, small_trajectories(0), 8);  // two groups of 4
    auto keeper = TrajectoryWriter::attach(name_, environment("a", 4));  // keeps the stream open
    auto* const shared = static_cast<std::atomic<int>*>(
        ::mmap(nullptr, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0));
    {
        std::vector<std::unique_ptr<Child>> children;
        for (int p = 0; p < kProcesses; ++p) {
            children.push_back(std::make_unique<Child>([&] {
                auto writer = TrajectoryWriter::attach(name_, environment("a", 4));
                for (int i = 0; i < kRounds; ++i) {
                    auto rollout = writer.begin(kLong);
                    require(rollout.is_ok());
                    require(shared->fetch_add(1) < 2);
                    shared->fetch_sub(1);
                }
            }));
        }
        for (auto& child : children) EXPECT_EQ(child->wait(), 0);
    }
    EXPECT_EQ(shared->load(), 0);
    ::munmap(shared, 4096);
}

TEST_F(TrajectoryTest, UnacknowledgedGroupsComeAgain) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    for (std::int32_t number = 0; number < 2; ++number) ASSERT_TRUE(succeeds(put(writer, number)));
    Gate taken;
    Child trainer([&] {
        auto doomed = TrajectoryReader::attach(name_, 2);
        auto batch = doomed.next_batch({}, kLong).or_throw();
        require(batch.groups() == 1);
        taken.open();
        for (;;) ::pause();
    });
    taken.pass();
    trainer.kill_unreaped();
    auto first = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(first));
    EXPECT_EQ(ids(*first), Ids{"g0"});
    EXPECT_EQ(first->deliveries(0), 2U);
    first->nack();
    auto second = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(second));
    EXPECT_EQ(ids(*second), Ids{"g0"});
    EXPECT_EQ(second->deliveries(0), 3U);
    second->ack(1);
    auto third = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(third));
    EXPECT_EQ(ids(*third), Ids{"g1"});
    third->ack(2);
    EXPECT_EQ(reader.stats().queue.held_bytes, 0U);
}

TEST_F(TrajectoryTest, AClosedReadersGroupsAreNotCountedAsDelivered) {
    auto keeper = TrajectoryReader::create(name_, small_trajectories(), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    for (std::int32_t number = 0; number < 3; ++number) ASSERT_TRUE(succeeds(put(writer, number)));
    {
        auto reader = TrajectoryReader::attach(name_, 2);
        auto batch = reader.next_batch({}, kLong);
        ASSERT_TRUE(succeeds(batch));
        batch->ack(1);
    }
    auto batch = keeper.next_batch({.sequences = 4}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), (Ids{"g1", "g2"}));
    EXPECT_EQ(batch->deliveries(0), 1U);
    batch->ack(2);
}

TEST_F(TrajectoryTest, TooManySequencesAreRefusedOnBothSides) {
    auto writer = TrajectoryWriter::create(name_, small_trajectories(), environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 1, 9)));  // no trainer yet: unknown
    auto reader = TrajectoryReader::attach(name_, 8);
    EXPECT_TRUE(fails(put(writer, 2, 9), ErrorCode::TooLarge));
    EXPECT_TRUE(fails(reader.next_batch({}, kLong), ErrorCode::TooLarge));
    auto batch = reader.next_batch({.sequences = 9}, kLong);
    ASSERT_TRUE(succeeds(batch));
    batch->ack(1);
    EXPECT_EQ(writer.stats().queue.held_bytes, 0U);
}

TEST_F(TrajectoryTest, TooManySequencesAreDeadLetteredOnRequest) {
    auto writer = TrajectoryWriter::create(name_, small_trajectories(), environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 1, 9)));
    ASSERT_TRUE(succeeds(put(writer, 2, 8)));
    auto reader = TrajectoryReader::attach(name_, 8);
    auto batch = reader.next_batch({.sets_oversized_aside = true}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), (Ids{"g2"}));
    EXPECT_EQ(reader.take_notices().size(), 1U);
    EXPECT_TRUE(reader.take_notices().empty());
    EXPECT_EQ(reader.stats().dead_lettered, 1U);
    EXPECT_EQ(reader.dead_letters()->size(), 1U);
    batch->ack(1);
    EXPECT_EQ(reader.discard(), 1U);
}

TEST_F(TrajectoryTest, TooManyTokensAreRefusedOrDeadLettered) {
    auto writer = TrajectoryWriter::create(name_, small_trajectories(), environment("a"));
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 1, {3, 5}))));  // no trainer yet: unknown
    ASSERT_TRUE(succeeds(put(writer, MadeGroup("a", 2, {4, 4}))));
    auto reader = TrajectoryReader::attach(name_, 2);
    reader.limit_tokens(4);
    EXPECT_TRUE(fails(put(writer, MadeGroup("a", 3, {5, 1})), ErrorCode::TooLarge));
    ASSERT_TRUE(succeeds(reader.restore(MadeGroup("a", 4, {5, 1}).message())));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), (Ids{"g2"}));
    EXPECT_EQ(batch->deliveries(0), 1U);
    batch->ack(1);
    EXPECT_EQ(reader.take_notices().size(), 2U);
    EXPECT_EQ(reader.stats().dead_lettered, 2U);
    EXPECT_EQ(reader.held_messages().size(), 1U);  // the restored group: it has no slot
    EXPECT_EQ(reader.discard(), 2U);
}

TEST_F(TrajectoryTest, AGroupOfABatchIsDeadLetteredAndTheOthersReturnUncounted) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    for (const std::int32_t number : {1, 2, 3}) ASSERT_TRUE(succeeds(put(writer, number)));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    batch->dead_letter(7);  // an unknown group
    ASSERT_TRUE(batch->is_open());
    batch->dead_letter(0);
    EXPECT_FALSE(batch->is_open());
    auto again = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(again));
    EXPECT_EQ(ids(*again), (Ids{"g2", "g3"}));
    EXPECT_EQ(again->deliveries(0), 1U);
    again->ack(1);
    EXPECT_EQ(reader.discard(), 1U);
}

TEST_F(TrajectoryTest, QueuedGroupsAreDroppedAndHeldOnesAreNot) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a", 2, 1, 0.5));
    for (const std::int32_t number : {1, 2, 3}) ASSERT_TRUE(succeeds(put(writer, number)));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    const Result<std::uint64_t> dropped = reader.drop_waiting();
    ASSERT_TRUE(succeeds(dropped));
    EXPECT_EQ(*dropped, 1U);
    ASSERT_TRUE(succeeds(put(writer, 4)));  // the stream goes on
    batch->nack();
    EXPECT_EQ(*reader.drop_waiting(), 3U);
    EXPECT_EQ(writer.stats().queue.held_bytes, 0U);
}

TEST_F(TrajectoryTest, GroupsThatKeepAColumnFromBecomingOneArray) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 4);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 1)));
    ASSERT_TRUE(succeeds(put(writer, 2)));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    using Indices = std::vector<std::size_t>;
    EXPECT_EQ(batch->unfit(Column::Tokens, codec::DType::Int64), Indices{});
    EXPECT_EQ(batch->unfit(Column::Tokens, codec::DType::Float32), (Indices{0, 1}));
    EXPECT_EQ(batch->unfit(Column::Advantages, std::nullopt), (Indices{0, 1}));
    batch->ack(1);
}

TEST_F(TrajectoryTest, AnInvalidGroupIsNotPut) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(1), 8);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    auto rollout = writer.begin(Deadline::now());
    ASSERT_TRUE(succeeds(rollout));
    auto loan = writer.loan(100, kLong);
    ASSERT_TRUE(succeeds(loan));
    std::memset(loan->bytes().data(), 0, 100);
    EXPECT_TRUE(fails(writer.commit(*loan, &*rollout, kLong), ErrorCode::InvalidArgument));
    EXPECT_EQ(writer.stats().queue.held_bytes, 0U);
    EXPECT_EQ(writer.stats().environments.at(0).running_groups, 1U);
    EXPECT_TRUE(succeeds(put(writer, 1, 2, &*rollout)));
    EXPECT_EQ(writer.stats().environments.at(0).running_groups, 0U);
    EXPECT_EQ(reader.discard(), 1U);
}

TEST_F(TrajectoryTest, TheEndDrains) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 8);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    for (std::int32_t number = 0; number < 5; ++number) ASSERT_TRUE(succeeds(put(writer, number)));
    reader.end();
    EXPECT_TRUE(fails(put(writer, 5), ErrorCode::Closed));
    EXPECT_TRUE(fails(writer.begin(kLong), ErrorCode::Closed));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    batch->ack(1);
    const auto rest = reader.next_batch({}, kLong);
    ASSERT_TRUE(fails(rest, ErrorCode::Closed));
    EXPECT_NE(rest.status().message().find("2 sequences wait"), std::string_view::npos);
    auto last = reader.next_batch({.sequences = 2}, kLong);
    ASSERT_TRUE(succeeds(last));
    last->ack(2);
    EXPECT_TRUE(fails(reader.next_batch({}, kLong), ErrorCode::Closed));
}

TEST_F(TrajectoryTest, StaleGroupsAreDroppedOnRequestAndCounted) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(1), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 0, 2, nullptr, 3)));
    ASSERT_TRUE(succeeds(put(writer, 1, 2, nullptr, 4)));
    reader.raise_version(5);
    auto batch = reader.next_batch({.drops_stale = true}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), Ids{"g1"});
    EXPECT_EQ(reader.stats().dropped_stale, 1U);
    batch->ack(6);
}

TEST_F(TrajectoryTest, TheVersionOnlyGrows) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    reader.raise_version(5);
    EXPECT_EQ(reader.version(), 5U);
    reader.raise_version(4);  // a checkpoint of before
    EXPECT_EQ(reader.version(), 5U);
    reader.raise_version(6);
    EXPECT_EQ(TrajectoryWriter::attach(name_, environment("a")).version(), 6U);
}

TEST_F(TrajectoryTest, RestoredGroupsComeFirstAndAreMarked) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    auto writer = TrajectoryWriter::attach(name_, environment("a"));
    ASSERT_TRUE(succeeds(put(writer, 1)));
    ASSERT_TRUE(succeeds(reader.restore(MadeGroup("a", 77, {3, 3}, 9).message())));
    EXPECT_TRUE(fails(reader.restore(std::vector<std::byte>(50)), ErrorCode::InvalidArgument));
    auto batch = reader.next_batch({}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), Ids{"g77"});
    EXPECT_EQ(batch->deliveries(0), 2U);
    batch->nack();
    EXPECT_EQ(reader.held_messages().size(), 2U);
    batch = reader.next_batch({.sequences = 4}, kLong);
    ASSERT_TRUE(succeeds(batch));
    EXPECT_EQ(ids(*batch), (Ids{"g77", "g1"}));
    batch->ack(1);
}

TEST_F(TrajectoryTest, AClosingReaderEndsTheWaitForABatch) {
    auto reader = TrajectoryReader::create(name_, small_trajectories(), 2);
    std::thread closer([&] { reader.request_close(); });  // before the wait or in it
    EXPECT_TRUE(fails(reader.next_batch({}, kLong), ErrorCode::Cancelled));
    EXPECT_TRUE(fails(reader.wait_ready(kLong), ErrorCode::Cancelled));
    closer.join();
}

TEST_F(TrajectoryTest, OtherQueuesAreRefused) {
    Queue plain = Queue::create(name_);
    try {
        auto reader = TrajectoryReader::attach(name_, 8);
        FAIL();
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::Incompatible);
        EXPECT_NE(std::string(error.what()).find("plain messages"), std::string::npos);
    }
    EXPECT_THROW(inspect_trajectories(name_), Error);
    const std::string other = new_name();
    auto reader = TrajectoryReader::create(other, small_trajectories(), 8);
    EXPECT_THROW(Queue::attach(other), Error);
    EXPECT_EQ(inspect_trajectories(other).trajectories.batch_sequences, 8U);
}

// A trainer that waits for more than there is, and then stops waiting: pollers get what there is
// for them.
TEST_F(TrajectoryTest, ADeadOrStoppedTrainerBlocksNoPoller) {
    TrajectoryWriter writer =
        TrajectoryWriter::create(name_, small_trajectories(), environment("math"));
    TrajectoryReader reader = TrajectoryReader::attach(name_, 4);
    for (const bool is_dead : {true, false}) {
        for (const Wait& wait : {Wait(Deadline::now()), Wait(std::chrono::milliseconds(10))}) {
            Child first([&] {
                TrajectoryReader own = TrajectoryReader::attach(name_, 8);
                static_cast<void>(own.next_batch({}, kLong));
            });
            await([&] { return writer.stats().queue.requests == 1; });
            ASSERT_TRUE(succeeds(put(writer, 1)));
            ASSERT_TRUE(succeeds(put(writer, 2)));
            if (is_dead) {
                first.kill_unreaped();
            } else {
                first.stop();
            }
            await([&] {
                Result<TrajectoryBatch> batch = reader.next_batch({}, wait);
                if (batch) batch->ack(0);
                return batch.is_ok();
            });
        }
    }
}

}  // namespace
}  // namespace penstock
