from trinity_site.reports.room import Room


def test_room_has_so_many_places_and_so_many_for_each() -> None:
    room = Room(4, 2)
    assert [room.enter(account) for account in (1, 1, 1, 2, 3, 4)] == [True, True, False, True, True, False]
    room.leave(1)
    assert room.enter(4)
    assert not room.enter(1)  # it is full
    for account in (1, 2, 3, 4):
        room.leave(account)
    assert [room.enter(9), room.enter(9), room.enter(9)] == [True, True, False]
