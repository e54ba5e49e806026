// A redis-server for one test, in a temporary folder, removed with the test.
#pragma once

#include <gtest/gtest.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "remote/redis_connection.hpp"
#include "tests/unit/support/child.hpp"
#include "tests/unit/support/names.hpp"
#include "tests/unit/support/redis_program.hpp"

namespace penstock::test {

// Reason why a test that needs a server can't run here; empty: it can.
inline std::string why_no_server() {
    if (!detail::has_redis()) return "this build is without hiredis";
    return find_server().empty() ? "neither redis-server nor valkey-server is installed" : "";
}

#define PENSTOCK_NEEDS_SERVER()                                  \
    if (const std::string why = why_no_server(); !why.empty()) { \
        GTEST_SKIP() << why;                                     \
    }                                                            \
    static_assert(true)

// A server's answer to a command, on a connection of its own.
inline detail::RedisOutcome ask(const detail::Endpoint& endpoint, const Words& words) {
    static const Cancel never;
    const Deadline deadline = Deadline::after(std::chrono::seconds(10));
    detail::RedisOutcome outcome;
    const auto connection = detail::RedisConnection::open(endpoint, deadline, never, outcome);
    if (connection == nullptr) return outcome;
    detail::RedisRequest request;
    request.words.assign(words.begin(), words.end());
    request.most_bytes = std::uint64_t{128} << 20U;
    return connection->exchange(request, deadline);
}

inline bool is_free(int port) {
    const int probe = ::socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    sockaddr_in place{};
    place.sin_family = AF_INET;
    place.sin_port = htons(static_cast<std::uint16_t>(port));
    place.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    const int bound = ::bind(probe, reinterpret_cast<sockaddr*>(&place), sizeof(place));
    ::close(probe);
    return bound == 0;
}

// A free port of loopback whose cluster port, 10000 above it, is free too. Both are below the
// kernel's ephemeral ports.
inline std::uint16_t free_port() {
    constexpr int kBus = 10'000;
    // Each test process begins at a place of its own: of two that draw the same port between this
    // look and the server's, one would be served by the other's server.
    static int next = ::getpid() * 4;
    for (;;) {
        const int candidate = 11'000 + next++ % 9'000;
        if (is_free(candidate) && is_free(candidate + kBus)) {
            return static_cast<std::uint16_t>(candidate);
        }
    }
}

// Server process. The constructor returns when the server answers.
class RedisServer {
public:
    explicit RedisServer(Words more = {}) : more_(std::move(more)) {
        endpoint_.path = folder_ / "socket";
        start();
    }
    // On a port of loopback.
    RedisServer(std::uint16_t port, Words more) : more_(std::move(more)) {
        endpoint_.host = "127.0.0.1";
        endpoint_.port = port;
        start();
    }

    [[nodiscard]] std::string url() const {
        return endpoint_.path.empty() ? "redis://" + endpoint_.title() : "unix:" + endpoint_.path;
    }
    [[nodiscard]] const detail::Endpoint& endpoint() const { return endpoint_; }
    detail::RedisReply say(const Words& words) const {
        const detail::RedisOutcome outcome = ask(endpoint_, words);
        EXPECT_TRUE(outcome.is_answered()) << outcome.sentence;
        return outcome.reply;
    }
    [[nodiscard]] bool answers() const {
        const auto outcome = ask(endpoint_, {"PING"});
        // A refusal is an answer too.
        return outcome.is_answered() && (outcome.reply.kind == detail::RedisReply::Kind::Line ||
                                         outcome.reply.text.starts_with("NOAUTH"));
    }
    // Keys that begin with `start`.
    [[nodiscard]] Words keys(const std::string& start = "") const {
        Words names;
        for (const auto& element : say({"KEYS", start + "*"}).elements) {
            names.push_back(element.text);
        }
        return names;
    }
    // How often a command was called.
    [[nodiscard]] std::uint64_t calls(const std::string& command) const {
        const std::string text = say({"INFO", "commandstats"}).text;
        const std::string label = "cmdstat_" + command + ":calls=";
        const std::size_t at = text.find(label);
        return at == std::string::npos ? 0 : std::stoull(text.substr(at + label.size()));
    }

    void kill() {
        child_->send(SIGKILL);
        child_->wait();
    }
    void start() {
        child_.reset();  // before another server of this name starts
        child_ = std::make_unique<Child>([this] {
            become(command());
            require(false);
        });
        await([this] { return answers(); });
    }
    void stop() const { child_->stop(); }
    void resume() const { child_->resume(); }

private:
    [[nodiscard]] Words command() const {
        Words more{"--port", "0", "--unixsocket", endpoint_.path};
        if (endpoint_.path.empty()) {
            more = {"--port", std::to_string(endpoint_.port), "--bind", endpoint_.host};
        }
        more.insert(more.end(), more_.begin(), more_.end());
        return server_command(folder_.path(), folder_ / "log", more);
    }

    TemporaryFolder folder_;
    const Words more_;
    detail::Endpoint endpoint_;
    std::unique_ptr<Child> child_;
};

}  // namespace penstock::test
