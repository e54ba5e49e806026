// Connections by hiredis; the only file that includes it.
#include <fcntl.h>
#include <hiredis/hiredis.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <new>
#include <optional>
#include <system_error>
#include <utility>

#include "os/descriptor.hpp"
#include "remote/patience.hpp"
#include "remote/redis_connection.hpp"
#include "remote/shown.hpp"
#include "segment/waiting/timing.hpp"

namespace penstock::detail {

namespace {

using Kind = RedisReply::Kind;

// ---- callbacks of hiredis's reader, one per element of an answer

// Limit of one answer, because a server may announce an array of any size.
struct Allowance {
    std::size_t elements = 0;
};

// Stops exceptions, because the caller is hiredis, which is C; null means "out of memory" there.
template <typename Make>
void* without_throwing(Make&& make) noexcept {
    try {
        return make();
    } catch (const std::bad_alloc&) {
        return nullptr;
    }
}

void* place(const redisReadTask* task, RedisReply reply) {
    if (task->parent == nullptr) return new RedisReply(std::move(reply));
    auto& siblings = static_cast<RedisReply*>(task->parent->obj)->elements;
    const auto index = static_cast<std::size_t>(task->idx);
    if (index >= siblings.size()) return nullptr;
    siblings[index] = std::move(reply);
    return &siblings[index];
}

void* make_text(const redisReadTask* task, char* text, std::size_t size) {
    return without_throwing([&] {
        RedisReply reply;
        reply.kind = task->type == REDIS_REPLY_ERROR    ? Kind::Error
                     : task->type == REDIS_REPLY_STATUS ? Kind::Line
                                                        : Kind::Bytes;
        reply.text.assign(text, size);
        return place(task, std::move(reply));
    });
}

void* make_array(const redisReadTask* task, int elements) {
    auto& allowance = *static_cast<Allowance*>(task->privdata);
    const auto count = static_cast<std::size_t>(std::max(elements, 0));
    if (count > allowance.elements) return nullptr;  // hiredis reports this as out of memory
    allowance.elements -= count;
    return without_throwing([&] {
        RedisReply reply;
        reply.kind = Kind::Array;
        reply.elements.resize(count);
        return place(task, std::move(reply));
    });
}

void* make_integer(const redisReadTask* task, long long value) {
    return without_throwing([&] {
        RedisReply reply;
        reply.kind = Kind::Integer;
        reply.integer = value;
        return place(task, std::move(reply));
    });
}

void* make_nil(const redisReadTask* task) {
    return without_throwing([&] { return place(task, {}); });
}

void free_reply(void* reply) {
    delete static_cast<RedisReply*>(reply);
}

redisReplyObjectFunctions reply_functions = {make_text, make_array, make_integer, make_nil,
                                             free_reply};

struct FreeReader {
    void operator()(redisReader* reader) const noexcept { redisReaderFree(reader); }
};
struct FreeContext {
    void operator()(redisContext* context) const noexcept { redisFree(context); }
};

RedisOutcome failed(RedisFault fault, std::string sentence) {
    return {fault, {}, std::move(sentence)};
}

std::string errno_words(int number) {
    return std::system_category().message(number);
}

}  // namespace

bool has_redis() noexcept {
    return true;
}

// Socket and receive buffer. A function that returns false, 0 or nullopt has put its failure into
// `outcome`; nullopt of peek_length() may also be an answer of another kind.
struct RedisConnection::Link {
    std::unique_ptr<redisContext, FreeContext> context;
    os::OwnDescriptor socket;  // context->fd, and the identity of its file
    std::string title;
    const Cancel* cancel = nullptr;
    const Wait* caller = nullptr;
    Clock::time_point next_look{};  // at the caller's Wait
    RedisOutcome outcome;
    Deadline deadline = Deadline::now();
    std::array<char, std::size_t{64} << 10U> buffer;  // received, not parsed yet
    std::size_t start = 0;
    std::size_t end = 0;

    Link() = default;
    Link(const Link&) = delete;
    Link& operator=(const Link&) = delete;
    ~Link() {
        if (socket.is_open()) static_cast<void>(check_socket());
    }

    bool fail(RedisFault fault, std::string_view what) {
        outcome = failed(fault, "the server at " + title + " " + std::string(what));
        return false;
    }

    // Guards against a program that closed the socket, so that another file has its number: that
    // file is not written, read or closed. Called before each exchange, after each wait and before
    // closing.
    bool check_socket() {
        if (socket.is_ours()) return true;
        context->fd = -1;
        return fail(RedisFault::Lost, "can't be asked: the socket was closed by this process");
    }

    void begin(Deadline until, const Wait* who) {
        deadline = until;
        caller = who;
        next_look = Clock::now() + kSlice;
    }

    // True: the caller's Wait has ended. Looks every kSlice, because `interrupted` may take a lock.
    bool is_given_up(Clock::time_point now) {
        if (caller == nullptr || now < next_look) return false;
        next_look = now + kSlice;
        return has_ended(*caller, now);
    }

    // Waits until the socket can be read or written.
    bool await(short events) {
        for (;;) {
            const auto now = Clock::now();
            if (cancel->is_cancelled() || is_given_up(now))
                return fail(RedisFault::Cancelled, "was not waited for any longer");
            if (deadline.has_passed(now))
                return fail(RedisFault::Timeout, "did not answer in time");
            const auto left =
                std::chrono::ceil<std::chrono::milliseconds>(deadline.left(now, kSlice));
            pollfd watch{context->fd, events, 0};
            const int ready = ::poll(&watch, 1, static_cast<int>(left.count()));
            if (ready > 0) return check_socket();
            if (ready < 0 && errno != EINTR) {
                return fail(RedisFault::Lost, "can't be waited for: " + errno_words(errno));
            }
            if (ready < 0) next_look = {};  // a signal: ask the caller at once
        }
    }

    // ---- sending

    bool send_all(std::span<iovec> pieces) {
        while (!pieces.empty()) {
            msghdr message{};
            message.msg_iov = pieces.data();
            message.msg_iovlen = pieces.size();
            const ssize_t sent = ::sendmsg(context->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (sent >= 0) {
                pieces = skip(pieces, static_cast<std::size_t>(sent));
            } else if (errno == EAGAIN || errno == EWOULDBLOCK) {
                if (!await(POLLOUT)) return false;
            } else if (errno != EINTR) {
                return fail(RedisFault::Lost, "is gone: " + errno_words(errno));
            }
        }
        return true;
    }

    static constexpr std::uint64_t kFrame = 64;  // "$123\r\n" and the like, around a value

    static std::span<iovec> skip(std::span<iovec> pieces, std::size_t sent) noexcept {
        while (!pieces.empty() && sent >= pieces.front().iov_len) {
            sent -= pieces.front().iov_len;
            pieces = pieces.subspan(1);
        }
        if (sent > 0) {
            iovec& first = pieces.front();
            first.iov_base = static_cast<char*>(first.iov_base) + sent;
            first.iov_len -= sent;
        }
        return pieces;
    }

    bool send(const RedisRequest& request) {
        const std::size_t count = request.words.size() + (request.is_storing ? 1 : 0);
        std::string frame = "*" + std::to_string(count) + "\r\n";
        for (const std::string_view word : request.words) {
            frame += "$" + std::to_string(word.size()) + "\r\n";
            frame += word;
            frame += "\r\n";
        }
        if (request.is_storing) frame += "$" + std::to_string(request.value.size()) + "\r\n";
        char line_end[] = {'\r', '\n'};
        // The const_cast is safe: sendmsg() only reads the data.
        std::array<iovec, 3> pieces = {
            {{frame.data(), frame.size()},
             {const_cast<std::byte*>(request.value.data()), request.value.size()},
             {line_end, sizeof(line_end)}}};
        return send_all(std::span(pieces).first(request.is_storing ? pieces.size() : 1));
    }

    // ---- receiving

    // Receives at least one byte. Returns the number of bytes; 0: failure.
    std::size_t receive(char* to, std::size_t most) {
        for (;;) {
            const ssize_t got = ::recv(context->fd, to, most, MSG_DONTWAIT);
            if (got > 0) return static_cast<std::size_t>(got);
            if (got == 0) {
                fail(RedisFault::Lost, "closed the connection");
                return 0;
            }
            if (errno == EAGAIN || errno == EWOULDBLOCK) {
                if (!await(POLLIN)) return 0;
            } else if (errno != EINTR) {
                fail(RedisFault::Lost, "is gone: " + errno_words(errno));
                return 0;
            }
        }
    }

    bool fill() {
        if (start == end) start = end = 0;  // otherwise less than a line is left
        const std::size_t got = receive(buffer.data() + end, buffer.size() - end);
        end += got;
        return got > 0;
    }

    // Reads an answer of any kind; one above the limits is Garbled.
    bool read_reply(std::uint64_t most_bytes) {
        constexpr std::size_t kMaxElements = std::size_t{1} << 18U;  // 16384 slots one by one
        Allowance allowance{kMaxElements};
        const std::unique_ptr<redisReader, FreeReader> reader(
            redisReaderCreateWithFunctions(&reply_functions));
        if (reader == nullptr) return fail(RedisFault::Lost, "can't be heard: no memory");
        reader->privdata = &allowance;
        std::uint64_t total = 0;
        for (;;) {
            if (start == end && !fill()) return false;
            total += end - start;
            if (total > most_bytes) return fail(RedisFault::Garbled, "answers without end");
            void* reply = nullptr;
            if (redisReaderFeed(reader.get(), buffer.data() + start, end - start) != REDIS_OK ||
                redisReaderGetReply(reader.get(), &reply) != REDIS_OK) {
                return fail(RedisFault::Garbled,
                            "does not speak the protocol: " + shown_text(reader->errstr));
            }
            start = end;
            if (reply == nullptr) continue;
            outcome.reply = std::move(*static_cast<RedisReply*>(reply));
            free_reply(reply);
            // Bytes after the answer are a violation: each request has one answer.
            if (reader->pos != reader->len) {
                return fail(RedisFault::Garbled, "says more than it was asked");
            }
            return true;
        }
    }

    // Length of a bulk string ("$123\r\n"), which stays in the buffer. nullopt: another kind of
    // answer, or a failure.
    struct Announced {
        long long bytes = 0;
        std::size_t line = 0;
    };
    std::optional<Announced> peek_length() {
        for (;;) {
            const std::string_view seen(buffer.data() + start, end - start);
            if (!seen.empty() && seen.front() != '$') return std::nullopt;
            const std::size_t line = seen.find("\r\n");
            if (line != std::string_view::npos) return read_length(seen.substr(0, line));
            constexpr std::size_t kLongestLine = 32;
            if (seen.size() > kLongestLine) return read_length(seen);
            if (!fill()) return std::nullopt;
        }
    }

    std::optional<Announced> read_length(std::string_view line) {
        long long length = 0;
        const char* const last = line.data() + line.size();
        const auto [stop, fault] = std::from_chars(line.data() + 1, last, length);
        if (fault == std::errc() && stop == last && length >= -1) {
            return Announced{length, line.size() + 2};
        }
        fail(RedisFault::Garbled, "announces a value without a length");
        return std::nullopt;
    }

    bool read_exactly(char* to, std::size_t size) {
        const std::size_t held = std::min(size, end - start);
        std::memcpy(to, buffer.data() + start, held);
        start += held;
        for (std::size_t done = held; done < size;) {
            const std::size_t got = receive(to + done, size - done);
            if (got == 0) return false;
            done += got;
        }
        return true;
    }

    bool misfit(long long bytes, std::uint64_t wanted) {
        return fail(RedisFault::Misfit, "has a value of " + std::to_string(bytes) +
                                            " bytes where " + std::to_string(wanted) +
                                            " are the most");
    }

    // Reads the answer to a request into the reply, `into` or the memory of `make_room`.
    bool read_answer(const RedisRequest& request) {
        const std::optional<Announced> announced = peek_length();
        if (!outcome.is_answered()) return false;
        if (announced && announced->bytes >= 0) {
            const auto bytes = static_cast<std::uint64_t>(announced->bytes);
            if (!request.into.empty() || request.make_room != nullptr) {
                return read_into(*announced, request);
            }
            if (bytes > request.most_bytes) return misfit(announced->bytes, request.most_bytes);
        }
        return read_reply(request.most_bytes + kFrame);
    }

    bool read_into(const Announced& announced, const RedisRequest& request) {
        const std::uint64_t wanted =
            request.make_room != nullptr ? request.room_bytes : request.into.size();
        if (static_cast<std::uint64_t>(announced.bytes) != wanted) {
            return misfit(announced.bytes, wanted);
        }
        std::span<std::byte> into = request.into;
        if (request.make_room != nullptr) {
            const std::optional<std::span<std::byte>> room = (*request.make_room)();
            if (!room) return fail(RedisFault::Cancelled, "has a value that is not wanted");
            into = *room;
        }
        start += announced.line;
        outcome.reply.kind = Kind::Bytes;
        std::array<char, 2> line_end{};
        if (!read_exactly(reinterpret_cast<char*>(into.data()), into.size())) return false;
        if (!read_exactly(line_end.data(), line_end.size())) return false;
        if (line_end == std::array{'\r', '\n'} && start == end) return true;
        return fail(RedisFault::Garbled, "does not end a value where it said");
    }

    // ---- connecting

    bool connect(const Endpoint& endpoint) {
        context.reset(endpoint.path.empty()
                          ? redisConnectNonBlock(endpoint.host.c_str(), endpoint.port)
                          : redisConnectUnixNonBlock(endpoint.path.c_str()));
        if (context == nullptr) return fail(RedisFault::Lost, "can't be reached: no memory");
        if (context->err != 0) {
            return fail(RedisFault::Lost, "can't be reached: " + std::string(context->errstr));
        }
        ::fcntl(context->fd, F_SETFD, FD_CLOEXEC);
        socket = os::remember_descriptor(context->fd);
        if (!await(POLLOUT)) return false;
        int error = 0;
        socklen_t size = sizeof(error);
        ::getsockopt(context->fd, SOL_SOCKET, SO_ERROR, &error, &size);
        if (error == 0) return true;
        return fail(RedisFault::Lost, "can't be reached: " + errno_words(error));
    }

    // AUTH or SELECT; an error reply is a failure.
    bool insist(const RedisRequest& request) {
        constexpr std::uint64_t kMaxLine = 4096;
        if (!send(request) || !read_reply(kMaxLine)) return false;
        if (outcome.reply.kind != Kind::Error) return true;
        const std::string& said = outcome.reply.text;
        if (said.starts_with("ERR max number")) return fail(RedisFault::Lost, "is full");
        // After AUTH only the error code is quoted: the rest may repeat the password.
        const bool is_secret = request.words.front() == "AUTH";
        const std::string shown = is_secret ? said.substr(0, said.find(' ')) : said;
        return fail(RedisFault::Refused, "refuses us: " + shown_text(shown));
    }

    bool introduce(const Endpoint& endpoint) {
        if (!endpoint.password.empty()) {
            RedisRequest request{{"AUTH"}};
            if (!endpoint.user.empty()) request.words.push_back(endpoint.user);
            request.words.push_back(endpoint.password);
            if (!insist(request)) return false;
        }
        if (endpoint.db == 0) return true;
        const std::string db = std::to_string(endpoint.db);
        return insist({{"SELECT", db}});
    }
};

RedisConnection::RedisConnection(std::unique_ptr<Link> link) noexcept : link_(std::move(link)) {}
RedisConnection::~RedisConnection() = default;

std::unique_ptr<RedisConnection> RedisConnection::open(const Endpoint& endpoint, Deadline deadline,
                                                       const Cancel& cancel, RedisOutcome& outcome,
                                                       const Wait* caller) {
    auto link = std::make_unique<Link>();
    link->title = endpoint.title();
    link->cancel = &cancel;
    link->begin(deadline, caller);
    if (!link->connect(endpoint) || !link->introduce(endpoint)) {
        outcome = std::move(link->outcome);
        return nullptr;
    }
    return std::unique_ptr<RedisConnection>(new RedisConnection(std::move(link)));
}

RedisOutcome RedisConnection::exchange(const RedisRequest& request, Deadline deadline) {
    link_->begin(deadline, request.caller);
    link_->outcome = {};
    try {
        if (link_->check_socket() && link_->send(request)) link_->read_answer(request);
    } catch (const std::bad_alloc&) {
        link_->outcome = {RedisFault::Garbled, {}, "no memory is left for a server's answer"};
    }
    return std::move(link_->outcome);
}

}  // namespace penstock::detail
