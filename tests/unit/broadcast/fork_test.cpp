// Forked children: the parent's handles refuse to work there and do no harm when destroyed; the
// child may attach on its own.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <optional>
#include <string>

#include "penstock/broadcast.hpp"
#include "tests/unit/broadcast/broadcast_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class BroadcastForkTest : public BroadcastTest {};

bool is_foreign(const Status& status) {
    return static_cast<bool>(fails(status, ErrorCode::WrongProcess,
                                   {"belongs to the parent process", "anew in the child"}));
}

template <typename T>
bool is_foreign(const Result<T>& result) {
    return is_foreign(result.status());
}

template <typename Call>
bool refuses_to(Call&& call) {
    return static_cast<bool>(refuses(ErrorCode::WrongProcess, call));
}

TEST_F(BroadcastForkTest, AWriterRefusesToWorkInAChild) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    Child child([&] {
        require(!writer.is_open());
        require(is_foreign(send(writer, 0, 10)));
        require(is_foreign(send(writer, 0, kGranule)));
        require(is_foreign(writer.loan(10)));
        require(is_foreign(writer.wait_ready()));
        require(refuses_to([&] { static_cast<void>(writer.stats()); }));
        require(refuses_to([&] { static_cast<void>(writer.readers()); }));
        require(refuses_to([&] { static_cast<void>(writer.blocked_by()); }));
        require(writer.descriptor() == -1);
        require(writer.name().starts_with(run_prefix));
        writer.request_close();
        writer.close();
    });
    EXPECT_EQ(child.wait(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    EXPECT_TRUE(receives(reader, 0, 10));
}

TEST_F(BroadcastForkTest, AReaderRefusesToWorkInAChild) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    Child child([&] {
        Bytes buffer(100);
        require(!reader.is_open());
        require(is_foreign(reader.recv()));
        require(is_foreign(reader.recv_into(buffer)));
        require(is_foreign(reader.next_size()));
        require(refuses_to([&] { static_cast<void>(reader.stats()); }));
        require(reader.descriptor() == -1);
        require(reader.rank() == 0);
        require(reader.name().starts_with(run_prefix));
        reader.request_close();
        reader.close();
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(receives(reader, 0, 10));
    EXPECT_EQ(writer.readers().at(0).life, BroadcastReaderState::Life::Active);
}

TEST_F(BroadcastForkTest, MessagesAndLoansOfTheParentAreLeftAlone) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small());
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 56)));
    ASSERT_TRUE(succeeds(send(writer, 1, kGranule)));
    std::optional<BroadcastMessage> small_one = reader.recv().or_throw();
    std::optional<BroadcastMessage> kept = reader.recv().or_throw();
    kept->keep();
    std::optional<BroadcastLoan> loan = writer.loan(kGranule).or_throw();
    trust::fill_numbered(loan->bytes(), 2);
    Child child([&] {
        small_one->keep();
        small_one->release();
        small_one.reset();
        kept.reset();
        require(is_foreign(loan->commit()));
        loan.reset();
        require(static_cast<bool>(
            refuses(ErrorCode::Busy, [&] { BroadcastReader::attach(writer.name(), 0); })));
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_EQ(reader.stats().used_bytes, 64U + 24);
    EXPECT_TRUE(is_message(small_one->bytes(), 0, 56));
    EXPECT_TRUE(is_message(kept->bytes(), 1, kGranule));
    EXPECT_TRUE(succeeds(loan->commit()));
    EXPECT_TRUE(receives(reader, 2, kGranule));
}

TEST_F(BroadcastForkTest, AChildAttachesAnew) {
    BroadcastWriter writer = BroadcastWriter::create(new_name(), small(2));
    BroadcastReader reader = BroadcastReader::attach(writer.name(), 0);
    ASSERT_TRUE(succeeds(send(writer, 0, 10)));
    Child child([&] {
        BroadcastReader own = BroadcastReader::attach(writer.name(), 1);
        require(static_cast<bool>(receives(own, 0, 10)));
        BroadcastWriter other = BroadcastWriter::create(run_prefix + "child", small());
        require(send(other, 0, 10).is_ok());
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_TRUE(receives(reader, 0, 10));
    EXPECT_EQ(writer.readers().at(1).life, BroadcastReaderState::Life::Vacant);
    EXPECT_EQ(writer.readers().at(1).messages, 1U);
}

// A child that lives on must not make its dead parent look alive.
TEST_F(BroadcastForkTest, AChildDoesNotKeepItsParentAlive) {
    const std::string name = new_name();
    const Gate created;
    const Gate end;
    const Shared<pid_t> heir;
    Child parent([&] {
        BroadcastWriter writer = BroadcastWriter::create(name, small());
        require(send(writer, 0, 10).is_ok());
        const pid_t pid = ::fork();
        if (pid == 0) {
            end.pass();
            ::_exit(0);
        }
        *heir = pid;  // by the parent alone
        created.open();
        for (;;) ::pause();
    });
    created.pass();
    BroadcastReader reader = BroadcastReader::attach(name, 0);
    parent.kill_unreaped();
    EXPECT_TRUE(receives(reader, 0, 10));
    EXPECT_TRUE(fails(reader.recv(kLong), ErrorCode::PeerDied));
    EXPECT_EQ(::kill(*heir, 0), 0) << "the heir is still there";
    end.open();
}

}  // namespace
}  // namespace penstock
