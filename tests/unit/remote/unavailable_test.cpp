// A library built without Redis refuses to make a second tier and says why.
#include <gtest/gtest.h>

#include "remote/redis_connection.hpp"
#include "tests/unit/remote/tier_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class UnavailableTest : public CleanTest {};

TEST_F(UnavailableTest, MakingASecondTierFailsWithAReason) {
    if (detail::has_redis()) GTEST_SKIP() << "this build has it";
    SecondTierOptions options;
    options.urls = {"redis://127.0.0.1"};
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument, [&] { TierTest::make_machine(options); },
                        {"built without Redis"}));
}

}  // namespace
}  // namespace penstock
