// Directory watches: they wake for names that appear, and a wait never becomes a busy loop.
#include "os/directory_watch.hpp"

#include <gtest/gtest.h>
#include <pthread.h>
#include <signal.h>

#include <chrono>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>

#include "os/shared_file.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"

namespace penstock::os {
namespace {

using namespace std::chrono_literals;
using test::Child;
using test::Gate;
using test::TemporaryFolder;
using Span = std::chrono::steady_clock::duration;

constexpr auto kLong = 20s;    // no wait below may last this long
constexpr auto kShort = 30ms;  // a wait for an event that does not come

Span time_of_wait(DirectoryWatch& watch, std::chrono::nanoseconds span) {
    const auto start = std::chrono::steady_clock::now();
    watch.wait(span);
    return std::chrono::steady_clock::now() - start;
}

void make_file(const std::string& path) {
    std::ofstream(path) << "x";
}

TEST(DirectoryWatchTest, SeesANameThatWasAddedBeforeTheWait) {
    const TemporaryFolder folder;
    DirectoryWatch watch(folder.path());
    make_file(folder / "file");
    EXPECT_LT(time_of_wait(watch, kLong), kLong);
}

TEST(DirectoryWatchTest, SeesANameThatAnotherProcessAddsDuringTheWait) {
    const TemporaryFolder folder;
    DirectoryWatch watch(folder.path());
    const Gate gate;
    Child child([&] {
        gate.pass();
        make_file(folder / "file");
    });
    gate.open();
    EXPECT_LT(time_of_wait(watch, kLong), kLong);
    EXPECT_EQ(child.wait(), 0);
}

TEST(DirectoryWatchTest, SeesAPublishedFile) {
    const TemporaryFolder folder;
    std::error_code error;
    SharedFile file = SharedFile::create_private(folder.path(), error);
    ASSERT_FALSE(error);
    DirectoryWatch watch(folder.path());
    ASSERT_FALSE(file.publish(folder / "published"));
    EXPECT_LT(time_of_wait(watch, kLong), kLong);
}

TEST(DirectoryWatchTest, SeesARename) {
    const TemporaryFolder folder;
    const TemporaryFolder elsewhere;
    make_file(elsewhere / "file");
    DirectoryWatch watch(folder.path());
    ASSERT_EQ(std::rename((elsewhere / "file").c_str(), (folder / "file").c_str()), 0);
    EXPECT_LT(time_of_wait(watch, kLong), kLong);
}

TEST(DirectoryWatchTest, ForgetsWhatItHasSeen) {
    const TemporaryFolder folder;
    DirectoryWatch watch(folder.path());
    for (int i = 0; i < 1000; ++i) make_file(folder / std::to_string(i));
    EXPECT_LT(time_of_wait(watch, kLong), kLong);
    EXPECT_GE(time_of_wait(watch, kShort), kShort);
}

TEST(DirectoryWatchTest, AWaitInAMissingFolderLastsItsTime) {
    DirectoryWatch watch("/nowhere/at/all");
    EXPECT_GE(time_of_wait(watch, kShort), kShort);
}

TEST(DirectoryWatchTest, ReturnsAtASignal) {
    const TemporaryFolder folder;
    DirectoryWatch watch(folder.path());
    struct sigaction handler{};
    struct sigaction before{};
    handler.sa_handler = [](int) {};
    ASSERT_EQ(::sigaction(SIGUSR2, &handler, &before), 0);
    const pthread_t waiter = ::pthread_self();
    std::jthread sender([&](const std::stop_token& stop) {
        while (!stop.stop_requested()) {  // the signal may come before the wait: send it again
            ::pthread_kill(waiter, SIGUSR2);
            std::this_thread::yield();
        }
    });
    EXPECT_LT(time_of_wait(watch, kLong), kLong);
    sender.request_stop();
    sender.join();
    ::sigaction(SIGUSR2, &before, nullptr);
}

}  // namespace
}  // namespace penstock::os
