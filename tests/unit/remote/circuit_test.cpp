// Pauses between the retries of a failed server.
#include "remote/circuit.hpp"

#include <gtest/gtest.h>

namespace penstock::detail {
namespace {

using namespace std::chrono_literals;

class CircuitTest : public ::testing::Test {
protected:
    // The pause is between half of `span` and all of it.
    void expect_pause(std::chrono::nanoseconds span) {
        EXPECT_GE(circuit_.attempt_at(), now_ + span / 2);
        EXPECT_LE(circuit_.attempt_at(), now_ + span);
    }

    Circuit circuit_{10ms, 100ms};
    const Clock::time_point now_ = Clock::now();
};

TEST_F(CircuitTest, PausesDoubleUpToAMaximum) {
    EXPECT_TRUE(circuit_.is_closed());
    EXPECT_EQ(circuit_.attempt_at(), Clock::time_point::max());
    circuit_.trip(now_);
    EXPECT_FALSE(circuit_.is_closed());
    expect_pause(10ms);
    for (const auto span : {20ms, 40ms, 80ms, 100ms, 100ms}) {
        circuit_.stay_open(now_);
        expect_pause(span);
    }
}

TEST_F(CircuitTest, FailuresTogetherCountOnce) {
    for (int i = 0; i < 10; ++i) circuit_.trip(now_);
    expect_pause(10ms);
}

TEST_F(CircuitTest, OnlyARequestThatSucceedsEndsTheDoubling) {
    circuit_.trip(now_);
    circuit_.close();
    EXPECT_TRUE(circuit_.is_closed());
    circuit_.trip(now_);  // the server answers PING and nothing else
    expect_pause(20ms);
    circuit_.close();
    circuit_.succeed();
    circuit_.trip(now_);
    expect_pause(10ms);
}

TEST_F(CircuitTest, ALateSuccessDoesNotCloseIt) {
    circuit_.trip(now_);
    circuit_.succeed();
    EXPECT_FALSE(circuit_.is_closed());
    circuit_.stay_open(now_);
    expect_pause(20ms);
}

TEST_F(CircuitTest, PausesDiffer) {
    Circuit other(10s, 10s);
    Circuit another(10s, 10s);
    other.trip(now_);
    another.trip(now_);
    other.stay_open(now_);
    const auto first = other.attempt_at();
    other.stay_open(now_);
    EXPECT_NE(other.attempt_at(), first);
}

}  // namespace
}  // namespace penstock::detail
