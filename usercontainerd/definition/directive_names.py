"""The directives that systemd knows: for snake_case spellings, and to notice a misspelt one.

Taken from ``systemd --dump-configuration-items`` of systemd 257, with what 258 and 259 added for services. A
directive that is not here is passed through all the same, with a warning.
"""

from __future__ import annotations

_UNIT = (
    "After AllowIsolate AssertACPower AssertArchitecture AssertCPUFeature AssertCPUPressure AssertCPUs "
    "AssertCapability AssertControlGroupController AssertCredential AssertDirectoryNotEmpty "
    "AssertEnvironment AssertFileIsExecutable AssertFileNotEmpty AssertFirstBoot AssertGroup AssertHost "
    "AssertIOPressure AssertKernelCommandLine AssertKernelVersion AssertMemory AssertMemoryPressure "
    "AssertNeedsUpdate AssertOSRelease AssertPathExists AssertPathExistsGlob AssertPathIsDirectory "
    "AssertPathIsEncrypted AssertPathIsMountPoint AssertPathIsReadWrite AssertPathIsSymbolicLink "
    "AssertSecurity AssertUser AssertVirtualization Before BindTo BindsTo CollectMode ConditionACPower "
    "ConditionArchitecture ConditionCPUFeature ConditionCPUPressure ConditionCPUs ConditionCapability "
    "ConditionControlGroupController ConditionCredential ConditionDirectoryNotEmpty ConditionEnvironment "
    "ConditionFileIsExecutable ConditionFileNotEmpty ConditionFirmware ConditionFirstBoot ConditionGroup "
    "ConditionHost ConditionIOPressure ConditionKernelCommandLine ConditionKernelVersion ConditionMemory "
    "ConditionMemoryPressure ConditionNeedsUpdate ConditionOSRelease ConditionPathExists "
    "ConditionPathExistsGlob ConditionPathIsDirectory ConditionPathIsEncrypted ConditionPathIsMountPoint "
    "ConditionPathIsReadWrite ConditionPathIsSymbolicLink ConditionSecurity ConditionUser "
    "ConditionVirtualization Conflicts DefaultDependencies Description Documentation FailureAction "
    "FailureActionExitStatus IgnoreOnIsolate JobRunningTimeoutSec JobTimeoutAction "
    "JobTimeoutRebootArgument JobTimeoutSec JoinsNamespaceOf OnFailure OnFailureIsolate OnFailureJobMode "
    "OnSuccess OnSuccessJobMode PartOf PropagateReloadFrom PropagateReloadTo PropagatesReloadTo "
    "PropagatesStopTo RebootArgument RefuseManualStart RefuseManualStop ReloadPropagatedFrom Requires "
    "RequiresMountsFor RequiresOverridable Requisite RequisiteOverridable SourcePath StartLimitAction "
    "StartLimitBurst StartLimitInterval StartLimitIntervalSec StopPropagatedFrom StopWhenUnneeded "
    "SuccessAction SuccessActionExitStatus SurviveFinalKillSignal Upholds Wants WantsMountsFor"
)

_SERVICE = (
    "AllowedCPUs AllowedMemoryNodes AmbientCapabilities AppArmorProfile BPFProgram BindLogSockets "
    "BindPaths BindReadOnlyPaths BlockIOAccounting BlockIODeviceWeight BlockIOReadBandwidth BlockIOWeight "
    "BlockIOWriteBandwidth BusName CPUAccounting CPUAffinity CPUQuota CPUQuotaPeriodSec "
    "CPUSchedulingPolicy CPUSchedulingPriority CPUSchedulingResetOnFork CPUShares CPUWeight "
    "CacheDirectory CacheDirectoryMode CapabilityBoundingSet ConfigurationDirectory "
    "ConfigurationDirectoryMode CoredumpFilter CoredumpReceive DefaultMemoryLow DefaultMemoryMin "
    "DefaultStartupMemoryLow Delegate DelegateNamespaces DelegateSubgroup DeviceAllow DevicePolicy "
    "DisableControllers DynamicUser Environment EnvironmentFile ExecCondition ExecPaths ExecReload "
    "ExecReloadPost ExecSearchPath ExecStart ExecStartPost ExecStartPre ExecStop ExecStopPost ExitType "
    "ExtensionDirectories ExtensionImagePolicy ExtensionImages FailureAction FileDescriptorStoreMax "
    "FileDescriptorStorePreserve FinalKillSignal Group GuessMainPID IOAccounting IODeviceLatencyTargetSec "
    "IODeviceWeight IOReadBandwidthMax IOReadIOPSMax IOSchedulingClass IOSchedulingPriority IOWeight "
    "IOWriteBandwidthMax IOWriteIOPSMax IPAccounting IPAddressAllow IPAddressDeny IPCNamespacePath "
    "IPEgressFilterPath IPIngressFilterPath IgnoreSIGPIPE ImportCredential InaccessibleDirectories "
    "InaccessiblePaths KeyringMode KillMode KillSignal LimitAS LimitCORE LimitCPU LimitDATA LimitFSIZE "
    "LimitLOCKS LimitMEMLOCK LimitMSGQUEUE LimitNICE LimitNOFILE LimitNPROC LimitRSS LimitRTPRIO "
    "LimitRTTIME LimitSIGPENDING LimitSTACK LoadCredential LoadCredentialEncrypted LockPersonality "
    "LogExtraFields LogFilterPatterns LogLevelMax LogNamespace LogRateLimitBurst LogRateLimitIntervalSec "
    "LogsDirectory LogsDirectoryMode ManagedOOMMemoryPressure ManagedOOMMemoryPressureDurationSec "
    "ManagedOOMMemoryPressureLimit ManagedOOMPreference ManagedOOMSwap MemoryAccounting "
    "MemoryDenyWriteExecute MemoryHigh MemoryKSM MemoryLimit MemoryLow MemoryMax MemoryMin "
    "MemoryPressureThresholdSec MemoryPressureWatch MemorySwapMax MemoryZSwapMax MemoryZSwapWriteback "
    "MountAPIVFS MountFlags MountImagePolicy MountImages NFTSet NUMAMask NUMAPolicy NetworkNamespacePath "
    "Nice NoExecPaths NoNewPrivileges NonBlocking NotifyAccess OOMPolicy OOMScoreAdjust OpenFile PAMName "
    "PIDFile PassEnvironment PermissionsStartOnly Personality PrivateBPF PrivateDevices PrivateIPC "
    "PrivateMounts PrivateNetwork PrivatePIDs PrivateTmp PrivateUsers ProcSubset ProtectClock "
    "ProtectControlGroups ProtectHome ProtectHostname ProtectKernelLogs ProtectKernelModules "
    "ProtectKernelTunables ProtectProc ProtectSystem ReadOnlyDirectories ReadOnlyPaths "
    "ReadWriteDirectories ReadWritePaths RebootArgument ReloadSignal RemainAfterExit RemoveIPC Restart "
    "RestartForceExitStatus RestartKillSignal RestartMaxDelaySec RestartMode RestartPreventExitStatus "
    "RestartSec RestartSteps RestrictAddressFamilies RestrictFileSystems RestrictNamespaces "
    "RestrictNetworkInterfaces RestrictRealtime RestrictSUIDSGID RootDirectory RootDirectoryStartOnly "
    "RootEphemeral RootHash RootHashSignature RootImage RootImageOptions RootImagePolicy RootVerity "
    "RuntimeDirectory RuntimeDirectoryMode RuntimeDirectoryPreserve RuntimeMaxSec "
    "RuntimeRandomizedExtraSec SELinuxContext SecureBits SendSIGHUP SendSIGKILL SetCredential "
    "SetCredentialEncrypted SetLoginEnvironment Slice SmackProcessLabel SocketBindAllow SocketBindDeny "
    "Sockets StandardError StandardInput StandardInputData StandardInputText StandardOutput "
    "StartLimitAction StartLimitBurst StartLimitInterval StartupAllowedCPUs StartupAllowedMemoryNodes "
    "StartupBlockIOWeight StartupCPUShares StartupCPUWeight StartupIOWeight StartupMemoryHigh "
    "StartupMemoryLow StartupMemoryMax StartupMemorySwapMax StartupMemoryZSwapMax StateDirectory "
    "StateDirectoryMode SuccessExitStatus SupplementaryGroups SyslogFacility SyslogIdentifier SyslogLevel "
    "SyslogLevelPrefix SystemCallArchitectures SystemCallErrorNumber SystemCallFilter SystemCallLog "
    "TTYColumns TTYPath TTYReset TTYRows TTYVHangup TTYVTDisallocate TasksAccounting TasksMax "
    "TemporaryFileSystem TimeoutAbortSec TimeoutCleanSec TimeoutSec TimeoutStartFailureMode "
    "TimeoutStartSec TimeoutStopFailureMode TimeoutStopSec TimerSlackNSec Type UMask "
    "USBFunctionDescriptors USBFunctionStrings UnsetEnvironment User UtmpIdentifier UtmpMode WatchdogSec "
    "WatchdogSignal WorkingDirectory"
)

_INSTALL = "Alias Also DefaultInstance RequiredBy UpheldBy WantedBy"

SECTIONS = {
    "unit": frozenset(_UNIT.split()),
    "service": frozenset(_SERVICE.split()),
    "install": frozenset(_INSTALL.split()),
}
