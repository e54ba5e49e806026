// Connections by hiredis; the only file that includes it.
//
// hiredis parses every answer but values: its reader copies a value into a buffer that grows, and
// hands it out when it is complete. So "$<length>\r\n<value>\r\n" is read here.
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
#include <iterator>
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

constexpr std::uint64_t kFrame = 64;  // "$123\r\n" and the like, around a value
constexpr std::array kLineEnd = {'\r', '\n'};
constexpr std::size_t kSurplus = kLineEnd.size() + 1;
constexpr std::size_t kLongestLine = 32;  // of a length, which has 20 digits at most

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
    std::array<char, std::size_t{128} << 10U> buffer;  // received, not parsed yet
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

    // `bytes`: of bytes or characters, and no temporary. The const_cast is safe: sendmsg() only
    // reads the data.
    template <typename Bytes>
    static iovec piece_of(const Bytes& bytes) noexcept {
        return {const_cast<void*>(static_cast<const void*>(std::data(bytes))), std::size(bytes)};
    }

    static std::string frame_of(const RedisRequest& request) {
        const std::size_t count = request.words.size() + (request.is_storing ? 1 : 0);
        std::string frame = "*" + std::to_string(count) + "\r\n";
        for (const std::string_view word : request.words) {
            frame += "$" + std::to_string(word.size()) + "\r\n";
            frame += word;
            frame += "\r\n";
        }
        if (!request.is_storing) return frame;
        const std::size_t seal = request.is_sealed ? kSealBytes : 0;
        const std::size_t bytes = request.lead.size() + request.value.size() + seal;
        return frame + "$" + std::to_string(bytes) + "\r\n";
    }

    bool send(const RedisRequest& request) {
        const std::string frame = frame_of(request);
        if (request.is_sealed) return send_sealed(frame, request);
        std::array pieces = {piece_of(frame), piece_of(request.lead), piece_of(request.value),
                             piece_of(kLineEnd)};
        return send_all(std::span(pieces).first(request.is_storing ? pieces.size() : 1));
    }

    // Adds each piece to the checksum before it is sent, while the server receives those before it:
    // that costs little time, and leaves the piece in the cache for the copy into the socket.
    bool send_sealed(const std::string& frame, const RedisRequest& request) {
        constexpr std::size_t kSummedAtOnce = std::size_t{128} << 10U;
        RunningChecksum sum;
        std::span<const std::byte> left = request.value;
        std::array pieces = {piece_of(frame), piece_of(request.lead), iovec{}, iovec{},
                             piece_of(kLineEnd)};
        std::size_t unsent = 0;  // frame and lead are sent once
        while (left.size() > kSummedAtOnce) {
            sum.add(left.first(kSummedAtOnce));
            pieces[2] = piece_of(left.first(kSummedAtOnce));
            if (!send_all(std::span(pieces).first(3).subspan(unsent))) return false;
            unsent = 2;
            left = left.subspan(kSummedAtOnce);
        }
        sum.add(left);
        const Seal seal = seal_of(sum.value());
        pieces[2] = piece_of(left);
        pieces[3] = piece_of(seal);
        return send_all(std::span(pieces).subspan(unsent));
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

    [[nodiscard]] std::size_t held() const noexcept { return end - start; }

    // Receives at least one byte, and at most `most`, into the buffer.
    bool fill(std::size_t most) {
        std::memmove(buffer.data(), buffer.data() + start, held());  // little, if anything
        end = held();
        start = 0;
        const std::size_t got = receive(buffer.data() + end, std::min(most, buffer.size() - end));
        end += got;
        return got > 0;
    }

    // Fills the buffer until it holds `bytes` bytes. Receives up to kSurplus more: the line end
    // behind them, and one byte that must not come, so that it is noticed.
    bool hold(std::size_t bytes) {
        while (held() < bytes) {
            if (!fill(bytes + kSurplus - held())) return false;
        }
        return true;
    }

    // Reads an answer by hiredis; one above the limits is Garbled.
    bool read_reply(std::uint64_t most_bytes) {
        constexpr std::size_t kMaxElements = std::size_t{1} << 18U;  // 16384 slots one by one
        Allowance allowance{kMaxElements};
        const std::unique_ptr<redisReader, FreeReader> reader(
            redisReaderCreateWithFunctions(&reply_functions));
        if (reader == nullptr) return fail(RedisFault::Lost, "can't be heard: no memory");
        reader->privdata = &allowance;
        std::uint64_t total = 0;
        for (;;) {
            if (start == end && !fill(buffer.size())) return false;
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

    // Length of a bulk string ("$123\r\n"), whose line stays in the buffer. nullopt: another kind
    // of answer, or a failure. The first read receives at most `first_read` bytes.
    struct Announced {
        long long bytes = 0;
        std::size_t line = 0;
    };
    std::optional<Announced> peek_length(std::size_t first_read) {
        for (;;) {
            const std::string_view seen(buffer.data() + start, held());
            if (!seen.empty() && seen.front() != '$') return std::nullopt;
            const std::size_t line = seen.substr(0, kLongestLine).find("\r\n");
            if (line != std::string_view::npos) return read_length(seen.substr(0, line));
            if (seen.size() >= kLongestLine) return no_length();
            if (!fill(std::max(first_read, kLongestLine) - seen.size())) return std::nullopt;
        }
    }

    std::optional<Announced> no_length() {
        fail(RedisFault::Garbled, "announces a value without a length");
        return std::nullopt;
    }

    std::optional<Announced> read_length(std::string_view line) {
        long long length = 0;
        const char* const last = line.data() + line.size();
        const auto [stop, fault] = std::from_chars(line.data() + 1, last, length);
        if (fault != std::errc() || stop != last || length < -1) return no_length();
        return Announced{length, line.size() + 2};
    }

    // Fills `to`: first from the buffer, then from the socket without another copy.
    bool read_exactly(std::span<std::byte> to, RunningChecksum* sum) {
        const std::size_t buffered = std::min(to.size(), held());
        if (buffered > 0) std::memcpy(to.data(), buffer.data() + start, buffered);
        start += buffered;
        if (sum != nullptr) sum->add(to.first(buffered));
        to = to.subspan(buffered);
        while (!to.empty()) {
            const std::size_t got = receive(reinterpret_cast<char*>(to.data()), to.size());
            if (got == 0) return false;
            if (sum != nullptr) sum->add(to.first(got));
            to = to.subspan(got);
        }
        return true;
    }

    // Reads the last bytes of a value, the end of its line, and nothing more.
    bool read_end(std::span<std::byte> tail) {
        if (!hold(tail.size() + kLineEnd.size())) return false;
        if (!read_exactly(tail, nullptr)) return false;
        const bool is_end = buffer[start] == kLineEnd[0] && buffer[start + 1] == kLineEnd[1];
        start += kLineEnd.size();
        if (is_end && start == end) return true;
        return fail(RedisFault::Garbled, "does not end a value where it said");
    }

    bool misfit(std::uint64_t bytes) {
        return fail(RedisFault::Misfit,
                    "has a value of " + std::to_string(bytes) + " bytes, which is not expected");
    }

    // Reads the answer to a request, a value into its sink and others into the reply.
    bool read_answer(const RedisRequest& request) {
        const std::optional<Announced> announced =
            peek_length(request.sink != nullptr ? request.sink->first_read() : buffer.size());
        if (!outcome.is_answered()) return false;
        if (!announced || announced->bytes < 0) return read_reply(request.most_bytes + kFrame);
        start += announced->line;
        outcome.reply.kind = Kind::Bytes;
        const auto bytes = static_cast<std::uint64_t>(announced->bytes);
        if (request.sink != nullptr) return read_into(*request.sink, bytes, request.sum);
        if (bytes > request.most_bytes) return misfit(bytes);
        outcome.reply.text.resize(bytes);
        return read_exactly(std::as_writable_bytes(std::span(outcome.reply.text)), nullptr) &&
               read_end({});
    }

    bool read_into(ValueSink& sink, std::uint64_t bytes, RunningChecksum* sum) {
        const std::size_t wanted = std::min(sink.seen_of(bytes), ValueSink::kSeenMost);
        if (!hold(static_cast<std::size_t>(std::min<std::uint64_t>(wanted, bytes)))) return false;
        const std::span<const std::byte> seen =
            std::as_bytes(std::span(buffer))
                .subspan(start, static_cast<std::size_t>(std::min<std::uint64_t>(held(), bytes)));
        const ValueRoom room = sink.begin(bytes, seen);
        if (room.fault == RedisFault::Cancelled) {
            return fail(RedisFault::Cancelled, "has a value that is not wanted");
        }
        const bool fits = room.skipped <= seen.size() &&
                          room.skipped + room.memory.size() + room.tail.size() == bytes;
        if (room.fault != RedisFault::None || !fits) return misfit(bytes);
        start += static_cast<std::size_t>(room.skipped);
        if (sum != nullptr) sum->rewind();
        return read_exactly(room.memory, sum) && read_end(room.tail);
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
