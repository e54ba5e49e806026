// Fixture of the Broadcast tests: names that are cleaned up, messages whose every byte follows from
// their number, and short ways to send and to check them.
#pragma once

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

#include "penstock/broadcast.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/messages.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/verdict.hpp"

namespace penstock::test {

inline constexpr std::uint64_t kSmallest = 4096;      // the smallest ring
inline constexpr std::uint64_t kGranule = 64 * 1024;  // of a Broadcast's blocks

inline BroadcastOptions small(unsigned readers = 1, std::uint64_t large = 16 * kGranule) {
    BroadcastOptions options;
    options.readers = readers;
    options.capacity = kSmallest;
    options.large = large;
    return options;
}

inline BroadcastOptions dropping(BroadcastOptions options) {
    options.on_reader_death = OnReaderDeath::Drop;
    return options;
}

inline Status send(BroadcastWriter& writer, std::uint64_t number, std::size_t size,
                   const Wait& wait = Deadline::now()) {
    return writer.send(make_message(number, size), wait);
}

// Sends until the ring is full; returns the number of messages sent.
inline std::uint64_t fill_ring(BroadcastWriter& writer, std::uint64_t number, std::size_t size) {
    std::uint64_t sent = 0;
    while (send(writer, number + sent, size)) ++sent;
    return sent;
}

// The next message is `number`, under its sequence number.
inline ::testing::AssertionResult receives(BroadcastReader& reader, std::uint64_t number,
                                           std::size_t size, std::uint64_t sequence) {
    const Result<BroadcastMessage> message = reader.recv(kLong);
    if (!message) return succeeds(message);
    if (message->sequence() != sequence) {
        return ::testing::AssertionFailure()
               << "sequence number " << message->sequence() << ", not " << sequence;
    }
    return is_message(message->bytes(), number, size);
}

inline ::testing::AssertionResult receives(BroadcastReader& reader, std::uint64_t number,
                                           std::size_t size) {
    return receives(reader, number, size, number);
}

inline ::testing::AssertionResult receives_nothing(BroadcastReader& reader) {
    return fails(reader.recv(Deadline::now()), ErrorCode::Timeout);
}

// A reader in its own process. It attaches, receives `messages`, then sleeps until it is killed.
class SilentReader {
public:
    SilentReader(const std::string& name, unsigned rank, unsigned messages = 0)
        : child_([&] {
              BroadcastReader reader = BroadcastReader::attach(name, rank);
              for (unsigned i = 0; i < messages; ++i) require(reader.recv(kLong).is_ok());
              ready_.open();
              for (;;) ::pause();
          }) {
        ready_.pass();
    }

    [[nodiscard]] pid_t pid() const { return child_.pid(); }
    [[nodiscard]] std::string pid_text() const { return "pid " + std::to_string(pid()); }
    void kill() const { child_.kill_unreaped(); }
    void stop() const { child_.stop(); }
    void resume() const { child_.resume(); }

private:
    Gate ready_;
    Child child_;
};

class BroadcastTest : public CleanTest {
protected:
    // The only element of a list.
    static BroadcastReaderState only(const std::vector<BroadcastReaderState>& readers) {
        EXPECT_EQ(readers.size(), 1U);
        return readers.empty() ? BroadcastReaderState{} : readers.front();
    }
};

}  // namespace penstock::test
