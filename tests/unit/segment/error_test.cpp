// Errors: codes have the names of the Python classes, and a Status keeps its message.
#include "penstock/error.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <type_traits>
#include <utility>

#include "penstock/segment.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock {
namespace {

using test::fails;
using test::refuses;

TEST(ErrorTest, EveryCodeHasItsName) {
    const std::pair<ErrorCode, const char*> names[] = {
        {ErrorCode::Ok, "Ok"},
        {ErrorCode::Timeout, "Timeout"},
        {ErrorCode::Closed, "Closed"},
        {ErrorCode::PeerDied, "PeerDied"},
        {ErrorCode::NotFound, "NotFound"},
        {ErrorCode::AlreadyExists, "AlreadyExists"},
        {ErrorCode::NoSpace, "NoSpace"},
        {ErrorCode::TooLarge, "TooLarge"},
        {ErrorCode::Incompatible, "Incompatible"},
        {ErrorCode::Corrupt, "Corrupt"},
        {ErrorCode::Cancelled, "Cancelled"},
        {ErrorCode::InvalidName, "InvalidName"},
        {ErrorCode::InvalidArgument, "InvalidArgument"},
        {ErrorCode::PermissionDenied, "PermissionDenied"},
        {ErrorCode::Busy, "Busy"},
        {ErrorCode::WrongProcess, "WrongProcess"},
        {ErrorCode::System, "System"},
    };
    for (const auto& [code, name] : names) EXPECT_EQ(to_string(code), name);
    EXPECT_EQ(to_string(static_cast<ErrorCode>(200)), "Unknown");
}

TEST(ErrorTest, EveryKindHasItsName) {
    EXPECT_EQ(to_string(Kind::Broadcast), "broadcast");
    EXPECT_EQ(to_string(Kind::Queue), "queue");
    EXPECT_EQ(to_string(Kind::Store), "store");
    EXPECT_EQ(to_string(Kind::Service), "service");
    EXPECT_EQ(to_string(static_cast<Kind>(77)), "unknown");
}

TEST(StatusTest, IsOkByDefault) {
    const Status status;
    EXPECT_TRUE(status.is_ok());
    EXPECT_TRUE(static_cast<bool>(status));
    EXPECT_EQ(status.code(), ErrorCode::Ok);
    EXPECT_EQ(status.peer(), -1);
    EXPECT_NO_THROW(status.or_throw());
    EXPECT_TRUE(Status::ok().is_ok());
}

TEST(StatusTest, KeepsItsMessageAndItsPeer) {
    const Status status(ErrorCode::PeerDied, "reader 2 died", 2);
    EXPECT_FALSE(status);
    EXPECT_TRUE(fails(status, ErrorCode::PeerDied, {"reader 2 died"}));
    EXPECT_EQ(status.peer(), 2);
}

TEST(StatusTest, ThrowsTheErrorOfItsCode) {
    const Status status(ErrorCode::PeerDied, "reader 2 died", 2);
    try {
        status.or_throw();
        FAIL() << "nothing was thrown";
    } catch (const Error& error) {
        EXPECT_EQ(error.code(), ErrorCode::PeerDied);
        EXPECT_STREQ(error.what(), "reader 2 died");
        EXPECT_EQ(error.peer(), 2);
    }
}

TEST(StatusTest, KeepsTheDeathItIsAbout) {
    const Status status(ErrorCode::PeerDied, "reader 2 died", 2, {.pid = 4711, .signal = 9});
    const auto is_whole = [](const Death& death) {
        return death.pid == 4711 && death.signal == 9 && !death.exit_code;
    };
    EXPECT_TRUE(is_whole(status.death()));
    const Status copy = status;  // NOLINT(performance-unnecessary-copy-initialization)
    EXPECT_TRUE(is_whole(copy.death()));
    try {
        status.or_throw();
        FAIL() << "nothing was thrown";
    } catch (const Error& error) {
        EXPECT_TRUE(is_whole(error.death()));
    }
    const Death nothing = Status(ErrorCode::Timeout).death();
    EXPECT_FALSE(nothing.pid || nothing.exit_code || nothing.signal);
}

TEST(StatusTest, CopiesAndMovesWhole) {
    Status status(ErrorCode::Busy, "rank 3 is taken", 3);
    const Status copy = status;
    EXPECT_TRUE(fails(status, ErrorCode::Busy, {"rank 3"})) << "a copy takes nothing away";
    const Status moved = std::move(status);
    for (const Status* same : {&copy, &moved}) {
        EXPECT_TRUE(fails(*same, ErrorCode::Busy, {"rank 3 is taken"}));
        EXPECT_EQ(same->peer(), 3);
    }
    Status assigned;
    const Status& itself = assigned;
    EXPECT_TRUE(Status(assigned).is_ok());
    assigned = copy;
    assigned = itself;
    EXPECT_TRUE(fails(assigned, ErrorCode::Busy, {"rank 3 is taken"}));
    static_assert(std::is_nothrow_copy_constructible_v<Status>);
}

TEST(StatusTest, ItsMessageIsAtLeastTheNameOfItsCode) {
    EXPECT_EQ(Status().message(), "Ok");
}

TEST(ResultTest, HoldsAValue) {
    Result<std::unique_ptr<int>> result(std::make_unique<int>(5));
    ASSERT_TRUE(result.is_ok());
    EXPECT_TRUE(static_cast<bool>(result));
    EXPECT_EQ(result.code(), ErrorCode::Ok);
    EXPECT_EQ(**result, 5);
    EXPECT_EQ(*result->get(), 5);
    const std::unique_ptr<int> taken = std::move(result).or_throw();
    EXPECT_EQ(*taken, 5);
}

TEST(ResultTest, HoldsAStatusInsteadOfAValue) {
    Result<int> result(Status(ErrorCode::Timeout, "no message came"));
    EXPECT_FALSE(result);
    EXPECT_TRUE(fails(result, ErrorCode::Timeout, {"no message came"}));
    EXPECT_TRUE(refuses(ErrorCode::Timeout,
                        [&] { static_cast<void>(std::move(result).or_throw()); },
                        {"no message came"}));
}

TEST(ResultTest, BuildsItsValueInPlace) {
    const Result<std::string> result(std::in_place, 3U, 'x');
    EXPECT_EQ(*result, "xxx");
}

}  // namespace
}  // namespace penstock
