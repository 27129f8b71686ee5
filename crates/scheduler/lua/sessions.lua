-- Sessions: which messages are executed (P1).

session = part(function(session)
  -- Whether a session's instance could call a deployment.
  function session.knows(id, deployment)
    local owner = sessions:get(id)
    if not owner then return false end
    if #rules.configurations == 1 then return true end
    for _, known in ipairs(deployments:get(id) or {}) do
      if known == deployment then return true end
    end
    return false
  end

  -- Gives a permit's concurrency back, and the probe if it was one.
  function session.release(id, number, deployment)
    if not calls.remove(id, number, deployment) then return end
    local of = health:get(deployment)
    if of and of.probe == number then
      of.probe = 0
      health:put(deployment, of)
    end
  end

  function session.give_item(id, item)
    local items = inbox:get(id) or {}
    items[#items + 1] = item
    inbox:put(id, items)
    local owner = sessions:get(id)
    if owner then group.wake(owner) end
  end

  -- P1 (a retransmission returns the stored answer). It is no sign of life: an instance that receives no answer would keep what it was granted for as long as it
  -- asks (A6).
  function session.replay(id)
    local answer = answers:get(id)
    if not answer then return RESYNC end
    return DONE, answer
  end

  -- P1, the table: RESYNC or STALE, or DONE with the stored answer, or nil: execute.
  function session.admit(replication)
    if message.epoch ~= state.epoch then
      if recovery.was_lost_since(message.epoch) then recovery.begin(replication) end
      return RESYNC
    end
    if message.hello[1] then return opening.admit(message.hello[1]) end
    local id = store.id(message.session)
    local own = sessions:get(id)
    if not own then return RESYNC end
    if message.batch == own.batch then return session.replay(id) end
    if message.batch < own.batch then return STALE end
    if own.silent then return RESYNC end
    if message.batch > own.batch + 1 then
      -- Steps that were answered are missing here: the group lost state (P3).
      recovery.begin(replication)
      return RESYNC
    end
    own.batch, own.seen = message.batch, state.lease
    step.own, step.id = own, id
  end

  function session.collect_within() return floor(rules.lease / 5) end

  -- Hands the sender what was granted to it by others' steps.
  function session.collect()
    local items = inbox:get(step.id)
    if not items then return end
    inbox:put(step.id, false)
    for _, item in ipairs(items) do
      if item.grant then
        step.grants[#step.grants + 1] = item.grant
      else
        step.refusals[#step.refusals + 1] = item.refusal
      end
    end
  end
end)

opening = part(function(opening)
  function opening.admit(hello)
    local known = group.instance(message.instance)
    if known.hello >= 0 then
      local former = sessions:get(known.session)
      if hello.number == known.hello and former and former.batch == message.batch then return session.replay(known.session) end
      if hello.number <= known.hello then return STALE end
      if rules then
        ending.finish(known.session, false)
        ending.settle_leftovers()
      end
    end
    step.id = store.id(group.draw())
    instances:put(message.instance, { hello = hello.number, session = step.id, gone = -1 })
    state.peers_version = state.peers_version + 1
    local configuration = configurations.learn(hello.rules, hello.rules_version)
    state.unsettled = true
    state.reap_at = min(state.reap_at, state.lease + group.reap_after(hello.rules.lease))
    step.own = {
      instance = message.instance, batch = message.batch, seen = state.lease, former = known.session, silent = false, peers_told = 0, configuration = configuration, waiting = 0,
    }
    local names = {}
    for i, deployment in ipairs(hello.rules.deployments) do names[i] = deployment.id end
    deployments:put(step.id, names)
  end
end)
