// A group as a message: it round-trips, and contradictions are refused by the column's name.
#include <cstring>

#include "tests/unit/trajectories/trajectory_fixture.hpp"
#include "trajectories/dtypes.hpp"

namespace penstock {
namespace {

using namespace test;
using codec::DType;

std::vector<std::byte> message_of(const GroupSource& source) {
    codec::MessageWriter writer;
    write_group(source, writer);
    std::vector<std::byte> bytes(writer.nbytes());
    writer.write(bytes.data());
    return bytes;
}

::testing::AssertionResult is_refused(const GroupSource& source, const std::string& words) {
    const auto bytes = message_of(source);
    const auto group = read_group(bytes);
    if (!fails(group, ErrorCode::InvalidArgument)) return fails(group, ErrorCode::InvalidArgument);
    const std::string sentence(group.status().message());
    if (sentence.find(words) != std::string::npos) return ::testing::AssertionSuccess();
    return ::testing::AssertionFailure() << sentence;
}

TEST(GroupTest, RoundTrips) {
    const MadeGroup made("gsm8k", 7, {3, 1, 5}, 42);
    const auto bytes = made.message();
    const auto group = read_group(bytes);
    ASSERT_TRUE(succeeds(group));
    EXPECT_EQ(group->environment, "gsm8k");
    EXPECT_EQ(group->instance_id, "g7");
    EXPECT_EQ(group->begun, 42U);
    EXPECT_EQ(group->offsets, (std::vector<std::uint64_t>{0, 3, 4, 9}));
    EXPECT_EQ(group->sequences(), 3U);
    ASSERT_TRUE(group->columns[0].has_value());
    EXPECT_EQ(group->columns[0]->data.size(), 9 * sizeof(std::int32_t));
    EXPECT_EQ(std::memcmp(group->columns[0]->data.data(), made.tokens_.data(), 36), 0);
    EXPECT_FALSE(group->columns[2].has_value());
    EXPECT_EQ(group->scores->dtype, DType::Float64);
}

TEST(GroupTest, ColumnsOfAnotherLengthAreNamed) {
    const MadeGroup made("code", 1, {3, 3});
    const MadeGroup shorter("code", 1, {3, 2});
    GroupSource source = made.source();
    const std::vector<std::int64_t> lengths = {3, 4};
    source.lengths = lengths;  // every column is written with seven values
    const auto bytes = message_of(source);
    ASSERT_TRUE(succeeds(read_group(bytes)));

    // A handmade column that is one value short.
    codec::MessageWriter writer;
    codec::Writer& out = writer.structure();
    out.map(5);
    out.text("environment");
    out.text("code");
    out.text("instance_id");
    out.text("q1");
    const auto array = [&](std::string_view key, DType dtype, const void* data,
                           std::int64_t count) {
        out.text(key);
        writer.tensor({.dtype = dtype, .shape = std::span(&count, 1), .data = data});
    };
    array("lengths", DType::Int64, made.lengths_.data(), 2);
    array("tokens", DType::Int32, made.tokens_.data(), 6);
    array("masks", DType::Int32, made.masks_.data(), 5);
    std::vector<std::byte> short_one(writer.nbytes());
    writer.write(short_one.data());
    const auto group = read_group(short_one);
    ASSERT_TRUE(fails(group, ErrorCode::InvalidArgument));
    EXPECT_EQ(group.status().message(),
              "column 'masks' of the group 'q1' of 'code' has 5 values where the tokens have 6");
}

TEST(GroupTest, NeedsTheVersionItWasBegunWith) {
    const MadeGroup made("code", 1, {2, 1});
    const std::int64_t values = 3;
    const std::int64_t sequences = 2;
    codec::MessageWriter writer;
    codec::Writer& out = writer.structure();
    out.map(3);
    out.text("environment");
    out.text("code");
    out.text("lengths");
    writer.tensor(
        {.dtype = DType::Int64, .shape = std::span(&sequences, 1), .data = made.lengths_.data()});
    out.text("tokens");
    writer.tensor(
        {.dtype = DType::Int32, .shape = std::span(&values, 1), .data = made.tokens_.data()});
    std::vector<std::byte> bytes(writer.nbytes());
    writer.write(bytes.data());
    const auto group = read_group(bytes);
    ASSERT_TRUE(fails(group, ErrorCode::InvalidArgument));
    EXPECT_EQ(group.status().message(), "column 'begun' of a group of 'code' is missing");
}

TEST(GroupTest, WrongDTypesAreNamed) {
    const MadeGroup made("code", 1, {3, 3});
    GroupSource source = made.source();
    source.columns[0].dtype = DType::Float32;
    EXPECT_TRUE(
        is_refused(source, "column 'tokens' of the group 'g1' of 'code' is float32, not integers"));
    source = made.source();
    source.columns[4].dtype = DType::Int32;
    EXPECT_TRUE(
        is_refused(source, "column 'inference_logprobs' of the group 'g1' of 'code' is int32"));
    source = made.source();
    source.scores.dtype = DType::Complex64;
    EXPECT_TRUE(is_refused(source, "column 'scores' of the group 'g1' of 'code' is complex64"));
}

TEST(GroupTest, MissingColumnsAreNamed) {
    const MadeGroup made("code", 1, {3, 3});
    GroupSource source = made.source();
    source.columns[0].data = nullptr;
    EXPECT_TRUE(is_refused(source, "column 'tokens' of the group 'g1' of 'code' is missing"));
    source = made.source();
    source.environment = "";
    EXPECT_TRUE(is_refused(source, "'environment'"));
    const std::vector<std::int64_t> lengths = {7, -1};
    source = made.source();
    source.lengths = lengths;
    EXPECT_TRUE(is_refused(source, "gives sequence 1 -1 tokens"));
    const std::vector<std::int64_t> huge = {std::int64_t{1} << 40U, 1};
    codec::MessageWriter writer;
    writer.structure().map(1);
    writer.structure().text("lengths");
    const std::int64_t two = 2;
    writer.tensor({.dtype = DType::Int64, .shape = std::span(&two, 1), .data = huge.data()});
    std::vector<std::byte> bytes(writer.nbytes());
    writer.write(bytes.data());
    EXPECT_TRUE(fails(read_group(bytes), ErrorCode::InvalidArgument));
}

TEST(GroupTest, UnknownColumnsAreNamed) {
    codec::MessageWriter writer;
    writer.structure().map(1);
    writer.structure().text("rewards");
    writer.structure().nil();
    std::vector<std::byte> bytes(writer.nbytes());
    writer.write(bytes.data());
    const auto group = read_group(bytes);
    ASSERT_TRUE(fails(group, ErrorCode::InvalidArgument));
    EXPECT_NE(group.status().message().find("'rewards'"), std::string_view::npos);
}

TEST(GroupTest, WidestHoldsBoth) {
    EXPECT_EQ(widest(DType::Int32, DType::Int32), DType::Int32);
    EXPECT_EQ(widest(DType::UInt16, DType::Int8), DType::Int32);
    EXPECT_EQ(widest(DType::Int32, DType::UInt32), DType::Int64);
    EXPECT_EQ(widest(DType::Float16, DType::BFloat16), DType::Float32);
    EXPECT_EQ(widest(DType::Float32, DType::Float64), DType::Float64);
}

}  // namespace
}  // namespace penstock
