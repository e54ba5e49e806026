// Persistent stores: they stay, with their objects, when the last participant leaves or is killed,
// whichever participant set the flag. Other stores go.
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <string>
#include <utility>

#include "penstock/segment.hpp"
#include "tests/unit/store/store_fixture.hpp"

namespace penstock {
namespace {

using namespace test;

class PersistTest : public StoreTest {
protected:
    void TearDown() override {
        if (exists(name_)) {
            EXPECT_TRUE(remove_if_abandoned(name_, OnData::Remove)) << "it is still in use";
        }
        StoreTest::TearDown();
    }
    // Runs `deed` in a process that attaches and is killed after `store` was closed.
    template <typename Deed>
    void by_the_last_who_is_killed(Store& store, Deed&& deed) {
        by_one_who_is_killed(deed, [&store] { store.close(); });
    }
    template <typename Deed>
    void by_one_who_is_killed(Deed&& deed) {
        by_one_who_is_killed(deed, [] {});
    }
    template <typename Deed, typename Before>
    void by_one_who_is_killed(Deed&& deed, Before&& before_its_death) {
        const Gate done;
        Child child([&] {
            Store own = Store::attach(name_);
            deed(own);
            done.open();
            for (;;) ::pause();
        });
        done.pass();
        before_its_death();
        child.send(SIGKILL);
        EXPECT_EQ(child.wait(), killed_by(SIGKILL));
    }
    void expect_kept(std::uint64_t objects) const {
        ASSERT_TRUE(exists(name_));
        const SegmentSummary summary = inspect_segment(name_);
        EXPECT_TRUE(summary.is_abandoned());
        EXPECT_TRUE(summary.kept.persistent);
        EXPECT_EQ(summary.kept.objects, objects);
        EXPECT_FALSE(remove_if_abandoned(name_)) << "collecting leaves it alone";
        EXPECT_TRUE(exists(name_));
    }
};

TEST_F(PersistTest, StaysWhenTheLastParticipantLeaves) {
    {
        Store store = Store::create(name_, small_store());
        put(store, 1).or_throw();
        EXPECT_FALSE(store.is_persistent());
        ASSERT_TRUE(succeeds(store.persist()));
        EXPECT_TRUE(store.is_persistent());
        ASSERT_TRUE(succeeds(store.persist())) << "the second time it does nothing";
    }
    expect_kept(1);
    Store again = Store::attach(name_);
    EXPECT_TRUE(has(again, 1));
    EXPECT_TRUE(again.is_persistent());
    EXPECT_TRUE(succeeds(put(again, 2)));
}

TEST_F(PersistTest, GoesWithItsLastParticipantByDefault) {
    {
        Store store = Store::create(name_, small_store());
        put(store, 1).or_throw();
        Store other = Store::attach(name_);
        EXPECT_FALSE(other.is_persistent());
    }
    EXPECT_FALSE(exists(name_));
}

TEST_F(PersistTest, AnyParticipantMaySetItAndAllSeeIt) {
    {
        Store store = Store::create(name_, small_store());
        put(store, 1).or_throw();
        Store other = Store::attach(name_);
        ASSERT_TRUE(succeeds(other.persist()));
        EXPECT_TRUE(store.is_persistent());
        other.close();
        EXPECT_TRUE(store.is_persistent()) << "it is the store's, not the handle's";
        EXPECT_TRUE(Store::attach(name_).is_persistent());
    }
    expect_kept(1);
}

TEST_F(PersistTest, SurvivesTheDeathOfItsSetter) {
    {
        Store store = Store::create(name_, small_store());
        put(store, 1).or_throw();
        by_one_who_is_killed([](Store& own) { own.persist().or_throw(); });
        EXPECT_TRUE(store.is_persistent());
        store.reap_dead();
        EXPECT_TRUE(store.is_persistent());
    }
    expect_kept(1);
}

TEST_F(PersistTest, StaysWhenTheLastParticipantIsKilled) {
    Store store = Store::create(name_, small_store());
    by_one_who_is_killed([&](Store& own) {
        put(own, 1).or_throw();
        own.persist().or_throw();
    });
    by_the_last_who_is_killed(store, [](Store&) {});
    expect_kept(1);
    Store again = Store::attach(name_);
    EXPECT_TRUE(has(again, 1));
}

// Without the flag, the store of a dead participant is collected, though its name is still there.
TEST_F(PersistTest, AnOrdinaryStoreIsCollectedAfterAKill) {
    Store store = Store::create(name_, small_store());
    by_the_last_who_is_killed(store, [](Store& own) { put(own, 1).or_throw(); });
    ASSERT_TRUE(exists(name_));
    EXPECT_TRUE(inspect_segment(name_).kept.is_nothing());
    EXPECT_TRUE(remove_if_abandoned(name_));
    EXPECT_FALSE(exists(name_));
}

TEST_F(PersistTest, CreatingReplacesAnEmptyPersistentStoreOnly) {
    {
        Store store = Store::create(name_, small_store());
        put(store, 1).or_throw();
        store.persist().or_throw();
    }
    EXPECT_TRUE(refuses(ErrorCode::AlreadyExists, [&] { Store::create(name_); },
                        {"keeps 1 object", "attach to it", "penstock gc --data"}));
    {
        Store again = Store::attach(name_);
        EXPECT_TRUE(has(again, 1));
        again.remove(key_of(1)).or_throw();
    }
    ASSERT_TRUE(exists(name_)) << "empty, and still told to stay";
    expect_kept(0);
    Store fresh = Store::create(name_, small_store());
    EXPECT_FALSE(fresh.is_persistent()) << "another store, which was not told";
    fresh.close();
    EXPECT_FALSE(exists(name_));
}

TEST_F(PersistTest, AStoreMayBeCreatedPersistent) {
    StoreOptions options = small_store();
    options.persistent = true;
    {
        Store store = Store::create(name_, options);
        EXPECT_TRUE(store.is_persistent());
        EXPECT_TRUE(succeeds(store.persist()));
    }
    expect_kept(0);
}

TEST_F(PersistTest, IsRefusedOnAForeignStore) {
    Store store = Store::create(name_, small_store());
    Child child([&] {
        require(store.persist().code() == ErrorCode::WrongProcess);
        require(!store.is_persistent());
    });
    EXPECT_EQ(child.wait(), 0);
    EXPECT_FALSE(store.is_persistent());
    Store left = Store::attach(name_);
    left.close();
    EXPECT_TRUE(fails(left.persist(), ErrorCode::Closed));
    EXPECT_FALSE(store.is_persistent());
    Child lost([&] {
        Store own = Store::attach(name_);
        ::close_range(3, ~0U, 0);
        own.reap_dead();  // notices the loss
        require(own.persist().code() == ErrorCode::WrongProcess);
    });
    EXPECT_EQ(lost.wait(), 0);
    EXPECT_FALSE(store.is_persistent());
}

}  // namespace
}  // namespace penstock
