// Broadcasts outside /dev/shm: without a name and reached by descriptor, or at a path.
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <filesystem>
#include <optional>
#include <string>

#include "penstock/broadcast.hpp"
#include "tests/support/lent_descriptor.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"
#include "tests/unit/support/refused_calls.hpp"

namespace penstock {
namespace {

using namespace test;

class PlaceTest : public BroadcastTest {};

TEST_F(PlaceTest, AnAnonymousBroadcastIsReachedByDescriptor) {
    BroadcastWriter writer = BroadcastWriter::create("", small(2));
    EXPECT_EQ(writer.name(), "");
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    ASSERT_TRUE(succeeds(send(writer, 1, kGranule)));
    BroadcastReader reader = BroadcastReader::attach(writer.descriptor(), 0);
    EXPECT_EQ(reader.instance(), writer.instance());
    EXPECT_TRUE(receives(reader, 0, 100));
    EXPECT_TRUE(receives(reader, 1, kGranule));
    EXPECT_TRUE(refuses(ErrorCode::Busy, [&] { BroadcastReader::attach(writer.descriptor(), 0); },
                        {"rank 0 of an anonymous segment"}));
    EXPECT_TRUE(refuses(ErrorCode::InvalidArgument,
                        [&] { BroadcastReader::attach(writer.descriptor(), 2); }));
    writer.close();
    EXPECT_TRUE(fails(reader.recv(), ErrorCode::Closed, {"an anonymous segment"}));
    BroadcastReader late = BroadcastReader::attach(reader.descriptor(), 1);
    EXPECT_TRUE(receives(late, 0, 100)) << "what was sent was kept for it";
}

TEST_F(PlaceTest, ADescriptorCanBeHandedToAnotherProcess) {
    BroadcastWriter writer = BroadcastWriter::create("", small());
    int sockets[2];
    ASSERT_EQ(::socketpair(AF_UNIX, SOCK_STREAM, 0, sockets), 0);
    Child child([&] {
        const int descriptor = trust::receive_descriptor(sockets[1]);
        BroadcastReader reader = BroadcastReader::attach(descriptor, 0);
        ::close(descriptor);
        require(static_cast<bool>(receives(reader, 0, 100)));
        require(reader.recv(kLong).code() == ErrorCode::Closed);
    });
    ASSERT_TRUE(trust::send_descriptor(sockets[0], writer.descriptor()));
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    ASSERT_TRUE(succeeds(writer.wait_ready(kLong)));
    writer.close();
    EXPECT_EQ(child.wait(), 0);
    ::close(sockets[0]);
    ::close(sockets[1]);
}

TEST_F(PlaceTest, ABorrowedDescriptorKeepsNoWriterAlive) {
    const std::string name = new_name();
    BroadcastReader observer = [&] {
        const Gate created;
        Child child([&] {
            const BroadcastWriter writer = BroadcastWriter::create(name, small());
            created.open();
            for (;;) ::pause();
        });
        created.pass();
        return BroadcastReader::attach(name, 0);
    }();
    EXPECT_TRUE(fails(observer.recv(kLong), ErrorCode::PeerDied));
    BroadcastWriter writer = BroadcastWriter::create("", small());
    const int copy = ::dup(writer.descriptor());
    BroadcastReader reader = BroadcastReader::attach(copy, 0);
    const int copy_of_reader = ::dup(reader.descriptor());
    reader.close();
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Vacant);
    reader = BroadcastReader::attach(copy_of_reader, 0);
    EXPECT_TRUE(reader.is_open());
    ::close(copy);
    ::close(copy_of_reader);
}

TEST_F(PlaceTest, ANamedBroadcastIsReachedByDescriptorToo) {
    const std::string name = new_name();
    std::optional<BroadcastWriter> writer = BroadcastWriter::create(name, small());
    BroadcastReader reader = BroadcastReader::attach(writer->descriptor(), 0);
    EXPECT_EQ(reader.name(), name);
    ASSERT_TRUE(succeeds(send(*writer, 0, 100)));
    writer.reset();
    EXPECT_TRUE(receives(reader, 0, 100));
    EXPECT_TRUE(exists(name));
    reader.close();
    EXPECT_FALSE(exists(name));
}

TEST_F(PlaceTest, ADescriptorOfSomethingElseIsRefused) {
    int ends[2];
    ASSERT_EQ(::pipe(ends), 0);
    EXPECT_TRUE(refuses(ErrorCode::Incompatible, [&] { BroadcastReader::attach(ends[0], 0); }));
    ::close(ends[0]);
    ::close(ends[1]);
    EXPECT_THROW(BroadcastReader::attach(-1, 0), Error);
}

TEST_F(PlaceTest, APathIsAsGoodAsAName) {
    const TemporaryFolder folder;
    const std::string name = "file:" + (folder / "steps");
    BroadcastWriter writer = BroadcastWriter::create(name, small());
    EXPECT_TRUE(
        refuses(ErrorCode::AlreadyExists, [&] { BroadcastWriter::create(name, small()); }, {name}));
    Child child([&] {
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        require(static_cast<bool>(receives(reader, 0, 100)));
        require(static_cast<bool>(receives(reader, 1, kGranule)));
        require(reader.recv(kLong).code() == ErrorCode::Closed);
    });
    ASSERT_TRUE(succeeds(send(writer, 0, 100)));
    ASSERT_TRUE(succeeds(send(writer, 1, kGranule)));
    ASSERT_TRUE(succeeds(writer.wait_ready(kLong)));
    EXPECT_EQ(inspect_broadcast(name).segment.name, name);
    writer.close();
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(folder.names().empty());
}

TEST_F(PlaceTest, AFileSystemWithoutUnnamedFilesWillDo) {
    const TemporaryFolder folder;
    Child child([&] {
        if (!refuse_calls({kNoTemporaryFiles})) ::_exit(kCannotRefuse);
        const std::string name = "file:" + (folder / "steps");
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        require(folder.names().size() == 1);
        require(static_cast<bool>(
            refuses(ErrorCode::AlreadyExists, [&] { BroadcastWriter::create(name, small()); })));
        require(folder.names().size() == 1);
        BroadcastReader reader = BroadcastReader::attach(name, 0);
        require(send(writer, 0, kGranule).is_ok());
        require(static_cast<bool>(receives(reader, 0, kGranule)));
        writer.close();
        reader.close();
        require(folder.names().empty());
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

TEST_F(PlaceTest, AKernelWithoutMembarrierWillDo) {
    constexpr std::uint64_t kMessages = 3'000;
    const std::string name = new_name();
    Child child([&] {
        if (!refuse_calls({kNoMembarrier})) ::_exit(kCannotRefuse);
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        Child receiver([&] {  // inherits the refusal
            BroadcastReader reader = BroadcastReader::attach(name, 0);
            for (std::uint64_t number = 0; number < kMessages; ++number) {
                require(static_cast<bool>(receives(reader, number, number % 700)));
            }
            require(reader.recv(kLong).code() == ErrorCode::Closed);
        });
        for (std::uint64_t number = 0; number < kMessages; ++number) {
            require(send(writer, number, number % 700, kLong).is_ok());
        }
        writer.close();
        require(receiver.wait() == 0);
    });
    const int outcome = child.wait();
    if (outcome == kCannotRefuse) GTEST_SKIP() << "no seccomp here";
    EXPECT_EQ(outcome, 0);
}

}  // namespace
}  // namespace penstock
